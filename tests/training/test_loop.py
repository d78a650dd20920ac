"""The loop calls every hook, in the order in which Modifier lists them, whatever group the modifier comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file

from sparse_xp.models.loading import locate
from sparse_xp.modifiers import MODIFIERS, Modifier
from sparse_xp.run import run
from tests.runs import SHORT, configure

pytestmark = pytest.mark.usefixtures("trained_only")

HOOKS = ("attach", "before_step", "loss", "before_update", "after_update", "detach", "check")


@dataclass(kw_only=True)
class Recorder(Modifier):
    """Writes down which hook was called at which step."""

    def __post_init__(self):
        super().__post_init__()
        self.calls = []
        for hook in HOOKS:
            setattr(self, hook, self.wrap(hook, getattr(self, hook)))

    def wrap(self, hook, real):
        def recorded(this, *arguments):
            self.calls.append((hook, this.progress.step))
            return real(this, *arguments)

        return recorded


@pytest.mark.parametrize("accumulation", [1, 2])
def test_hooks_in_order(tmp_path, monkeypatch, accumulation):
    config = configure(
        *SHORT, "task=sst2", "recipe=dense", "data.embedded_train_rows=64", "train.epochs=1",
        f"train.gradient_accumulation_steps={accumulation}", "train.save_every=100%",
    )  # fmt: skip
    monkeypatch.setitem(MODIFIERS, "Recorder", Recorder)
    recorder = Recorder()
    run(replace(config, quantization=recorder), tmp_path / "run")
    steps = 4 // accumulation
    expected = [("attach", 0)]
    for step in range(steps):
        expected += [
            ("before_step", step),
            *[("loss", step)] * accumulation,
            ("before_update", step),
            ("after_update", step),
        ]
    calls = [call for call in recorder.calls if call[0] != "check"]
    assert calls == [*expected, ("detach", steps)]
    assert recorder.calls.count(("check", steps)) == 3  # the best model, the last checkpoint, the delivered model


def test_the_loss_of_a_modifier_is_what_is_minimised(tmp_path, monkeypatch):
    @dataclass(kw_only=True)
    class Nothing(Modifier):
        def loss(self, run, rows, batch, outputs, loss):
            return loss * 0

    monkeypatch.setitem(MODIFIERS, "Nothing", Nothing)
    config = configure(*SHORT, "task=sst2", "recipe=dense", "train.epochs=0.2")
    run(replace(config, quantization=Nothing()), tmp_path / "run")
    before = load_file(f"{locate(config.model, tmp_path / 'outputs/.cache/models')}/model.safetensors")
    after = load_file(tmp_path / "run/model/model.safetensors")
    assert len(before) > 32
    assert all(torch.equal(weight, after[f"bert.{name}"]) for name, weight in before.items())
