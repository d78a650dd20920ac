"""``train.early_stopping``: a run ends when its score has not improved for a while, and never before its recipe."""

from __future__ import annotations

import pytest

from sparse_xp.run import run
from sparse_xp.settings import Train
from sparse_xp.training import checkpoint
from sparse_xp.training.loop import count_evaluation
from sparse_xp.training.state import Progress
from tests.runs import SHORT, configure, history

pytestmark = pytest.mark.usefixtures("trained_only")

WORDS = (*SHORT, "task=sst2", "teacher=none", "data.embedded_train_rows=64", "train.eval_every=1 step")
#: learns nothing: the first evaluation that counts is the best
IDLE = (
    "~recipe.learning_rate.warmup",
    "~recipe.learning_rate.decay",
    "+modifier@recipe.modifiers.rate=SetLearningRate",
)


def stops(scores, patience, threshold=0.0):
    """After how many of the evaluations a run stops, None if it does not."""
    progress, settings = Progress(), Train(early_stopping=patience, early_stopping_threshold=threshold)
    for number, score in enumerate(scores, 1):
        count_evaluation(progress, settings, score)
        if progress.stopped:
            return number
    return None


@pytest.mark.parametrize(
    ("scores", "patience", "threshold", "expected"),
    [
        ([50, 50], 1, 0.0, 2),
        ([50, 60, 70, 80], 1, 0.0, None),
        ([50, 60, 59, 60, 61], 2, 0.0, 4),  # as good is no improvement
        ([50, 60, 59, 61, 60, 60], 2, 0.0, 6),
        ([50, 60, 59, 60, 61], 3, 0.0, None),
        ([50, 50.5, 51], 1, 1.0, 2),
        ([50, 50.5, 51, 51.5, 52], 2, 1.0, 3),
        ([50, 50.5, 51.5, 52, 53], 2, 1.0, None),  # small steps add up
        ([50, 50, 50], None, 0.0, None),
    ],
)
def test_after_how_many_evaluations(scores, patience, threshold, expected):
    assert stops(scores, patience, threshold) == expected


def frozen(*more):
    return configure(*WORDS, "recipe=dense", *IDLE, "recipe.modifiers.rate.learning_rate=1e-12", *more)


def test_a_run_that_does_not_improve_ends_early(tmp_path, capsys):
    result = run(frozen("train.early_stopping=3", "train.keep_checkpoints=1"), tmp_path / "run")
    assert (result.training.steps, result.training.epochs, result.training.best_step) == (4, 1.0, 1)
    assert len([line for line in history(tmp_path / "run") if "metrics" in line]) == 4
    assert "step 4/12: train.early_stopping=3 ends the run, accuracy has not improved" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["epoch-1"]
    last = run(frozen("train.early_stopping=3", "train.keep_best=false"), tmp_path / "last")
    assert last.training.best_step == 4


def test_evaluations_before_the_recipe_is_fulfilled_do_not_count(tmp_path):
    words = ("recipe=gradual80", *IDLE, "recipe.modifiers.rate.learning_rate=1e-12", "train.early_stopping=2")
    result = run(configure(*WORDS, *words), tmp_path / "run")
    valid = [line["step"] for line in history(tmp_path / "run") if line.get("valid")]
    assert valid[0] == 8  # the ramp ends at 60 % of twelve steps
    assert result.training.steps == valid[-1] == 10
    assert result.sparsity.prunable == pytest.approx(0.8, abs=1e-3)


class Power(Exception):
    """The plug is pulled."""


@pytest.mark.parametrize("at", [3, 4])
def test_an_interrupted_run_ends_at_the_same_step(tmp_path, monkeypatch, at):
    """Also if it is interrupted when it has stopped already."""
    config = frozen("train.early_stopping=3", "train.save_every=1 step")
    real = checkpoint.save

    def save(this):
        real(this)
        if this.step == at:
            raise Power

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(Power):
        run(config, tmp_path / "run")
    monkeypatch.undo()
    assert run(config, tmp_path / "run").training.steps == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [("early_stopping", 0), ("early_stopping_threshold", -1.0), ("early_stopping_threshold", float("nan"))],
)
def test_refusals_name_the_key(field, value):
    with pytest.raises(ValueError, match=f"train.{field}={value}"):
        Train(**{field: value})
