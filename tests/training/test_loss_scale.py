"""Training in fp16 on the CPU, with losses scaled so far that gradients overflow: steps are skipped, and counted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from sparse_xp.errors import UserError
from sparse_xp.history import read_history
from sparse_xp.modifiers import MODIFIERS, Modifier
from sparse_xp.run import run
from tests.runs import SHORT, configure

pytestmark = pytest.mark.usefixtures("trained_only")

#: 8 steps, each of them logged; a checkpoint after every second one
EIGHT_STEPS = [
    *SHORT, "task=sst2", "recipe=dense", "data.embedded_train_rows=128", "train.epochs=1", "log.every=1",
    "train.save_every=25%", "train.eval_every=100%", "train.keep_states=10",
]  # fmt: skip


@dataclass(kw_only=True)
class HalfPrecision(Modifier):
    """Train in fp16, which Accelerate keeps for GPUs.

    ``scale``: that of the first step. ``stop``: the step to die in. ``factor``: of the loss.
    """

    scale: float = 65536.0
    stop: int = -1
    factor: float = 1.0

    def attach(self, context):
        accelerator = context.accelerator
        accelerator.scaler = GradScaler("cpu", init_scale=self.scale)
        accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True

    def before_step(self, context):
        if context.step == self.stop:
            raise KeyboardInterrupt

    def loss(self, context, rows, batch, outputs, loss):
        return loss * self.factor


def train(directory, monkeypatch, **fields):
    monkeypatch.setitem(MODIFIERS, "HalfPrecision", HalfPrecision)
    return run(replace(configure(*EIGHT_STEPS), quantization=HalfPrecision(**fields)), directory)


def steps_of(directory):
    lines = read_history(directory / "history.jsonl")
    return [(line["step"], line["loss"], line["loss_scale"], line["skipped"]) for line in lines if "loss" in line]


def test_nothing_is_skipped_at_a_scale_that_fits(tmp_path, monkeypatch):
    result = train(tmp_path / "run", monkeypatch, scale=1024.0)
    assert result.training.skipped == 0
    assert {(scale, skipped) for _, _, scale, skipped in steps_of(tmp_path / "run")} == {(1024.0, 0.0)}


def test_skipped_steps_are_counted_through_an_interruption(tmp_path, monkeypatch):
    straight = train(tmp_path / "straight", monkeypatch, scale=2.0**26)
    steps = steps_of(tmp_path / "straight")
    skipped = [int(each[3]) for each in steps]
    assert 3 <= skipped[-1] < 8
    # Every skipped step halves the scale, and no other one changes it.
    assert [each[2] for each in steps] == [2.0 ** (26 - count) for count in skipped]
    assert straight.training.skipped == skipped[-1]
    assert json.loads((tmp_path / "straight/result.json").read_text())["training"]["skipped"] == skipped[-1]

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", monkeypatch, scale=2.0**26, stop=5)
    saved = torch.load(tmp_path / "killed/checkpoints/step-00000004/state.pt", weights_only=True)
    assert saved["progress"]["skipped"] == skipped[3]
    monkeypatch.setattr(HalfPrecision.before_step, "__code__", Modifier.before_step.__code__)
    resumed = train(tmp_path / "killed", monkeypatch, scale=2.0**26, stop=5)
    assert steps_of(tmp_path / "killed") == steps
    assert resumed.training.skipped == straight.training.skipped


def test_a_run_that_never_updated_its_model_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"8 of 8 steps were skipped.*train.precision=bf16 or train.precision=fp32"):
        train(tmp_path / "run", monkeypatch, scale=2.0**100)
    assert not (tmp_path / "run/result.json").exists()


def test_a_scale_that_cannot_recover_ends_the_run_at_once(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"3 of 3 steps were skipped .* even after the loss scale fell to 3e-08"):
        train(tmp_path / "run", monkeypatch, scale=2.0**-22, factor=math.inf)
