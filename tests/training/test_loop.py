"""The loop calls every hook, in the order in which Modifier lists them, whatever group the modifier comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file

from sparse_xp.models.source import resolve_checkpoint
from sparse_xp.modifiers import MODIFIERS, Modifier
from sparse_xp.run import run
from sparse_xp.training.loop import completes_period
from sparse_xp.training.state import Progress
from tests.runs import SHORT, configure
from tests.tiny import make_run

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
            assert len(rows) == len(batch["labels"]) == len(outputs.logits)
            return loss * 0

        def target_reached(self, run):
            return run.progress.step > 0

    monkeypatch.setitem(MODIFIERS, "Nothing", Nothing)
    config = configure(*SHORT, "task=sst2", "recipe=dense", "train.epochs=0.2")
    run(replace(config, quantization=Nothing()), tmp_path / "run")
    before = load_file(f"{resolve_checkpoint(config.model, tmp_path / 'outputs/.cache/models')}/model.safetensors")
    after = load_file(tmp_path / "run/model/model.safetensors")
    assert len(before) > 32
    assert all(torch.equal(weight, after[f"bert.{name}"]) for name, weight in before.items())


@dataclass(kw_only=True)
class GradientNorms(Modifier):
    """Records the norm of the gradient before clipping, and the norm that the optimizer gets."""

    def __post_init__(self):
        super().__post_init__()
        self.before, self.clipped = [], []

    def before_update(self, run):
        if not self.before:
            run.optimizer.optimizer.register_step_pre_hook(lambda *_: self.clipped.append(self.norm(run)))
        self.before.append(self.norm(run))

    def norm(self, run):
        return torch.nn.utils.get_total_norm([p.grad for p in run.model.parameters() if p.grad is not None]).item()


@pytest.mark.parametrize("limit", ["0.01", "null"])
def test_gradients_are_clipped_before_the_update(tmp_path, monkeypatch, limit):
    monkeypatch.setitem(MODIFIERS, "GradientNorms", GradientNorms)
    norms = GradientNorms()
    config = configure(*SHORT, "task=sst2", "recipe=dense", "train.epochs=0.5", f"train.max_grad_norm={limit}")
    run(replace(config, quantization=norms), tmp_path / "run")
    assert len(norms.before) == 4
    assert min(norms.before) > 0.1
    assert norms.clipped == pytest.approx([0.01] * 4 if limit == "0.01" else norms.before, rel=1e-3)


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        (0.1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),  # 0.3 / 0.1 is a little less than 3
        (0.25, [3, 5, 8, 10, 13, 15]),  # 2.5 steps: the step that passes each multiple
        ("4 steps", [4, 8, 12, 15]),
        (0.01, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),  # at least one step
        ("100%", [15]),
    ],
)
def test_the_steps_at_which_a_period_is_over(every, steps):
    runs = [make_run(steps_per_epoch=10, total_steps=15, progress=Progress(step=step)) for step in range(1, 16)]
    assert [this.progress.step for this in runs if completes_period(this, every)] == steps
