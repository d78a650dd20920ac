"""``auto`` is what the card multiplies natively, and steps that the scaler skips are counted and said."""

from __future__ import annotations

import pytest
import torch

import sparse_xp.run
from sparse_xp.errors import UserError
from sparse_xp.run import run
from tests.gpu.machine import GPU, ONLY_CUDA, WORDS
from tests.runs import configure, history

pytestmark = [*GPU, ONLY_CUDA]


def with_scale(monkeypatch, scale):
    """Runs whose scaler begins so high that the first steps overflow."""
    real = sparse_xp.run.start

    def start(this, *given, **named):
        real(this, *given, **named)
        this.accelerator.scaler.load_state_dict({**this.accelerator.scaler.state_dict(), "scale": scale})

    monkeypatch.setattr(sparse_xp.run, "start", start)


def test_auto(tmp_path, trained_only):
    result = run(configure(*WORDS, "task=sst2", "recipe=dense", f"data.cache={tmp_path}/cache",
                           "train.precision=auto"), tmp_path / "run")  # fmt: skip
    native = torch.cuda.get_device_capability() >= (8, 0)
    assert result.training.precision == ("bf16" if native else "fp16")


@pytest.mark.parametrize("sparsity", ["gradual", "movement", "structured"])
def test_skipped_steps_are_logged(tmp_path, monkeypatch, trained_only, sparsity):
    recipe = "structured50" if sparsity == "structured" else "gradual80"
    words = (*WORDS, "task=sst2", f"recipe={recipe}", f"sparsity={sparsity}", "train.precision=fp16")
    with_scale(monkeypatch, 2.0**28)
    result = run(configure(*words, f"data.cache={tmp_path}/cache"), tmp_path / "run")
    lines = [line for line in history(tmp_path / "run") if "loss" in line]
    assert 1 <= lines[-1]["skipped"] == result.training.skipped < 24
    assert lines[-1]["loss_scale"] < 2.0**28
    assert (tmp_path / "run/report.md").read_text().count("changed no weight")


def test_a_run_without_an_update_fails(tmp_path, monkeypatch, trained_only):
    words = (*WORDS, "task=sst2", "recipe=dense", "train.precision=fp16", "train.steps=8")
    with_scale(monkeypatch, 2.0**100)
    with pytest.raises(UserError, match="skipped"):
        run(configure(*words, f"data.cache={tmp_path}/cache"), tmp_path / "run")
