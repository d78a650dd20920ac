"""Attention distilled in whole runs; the distances are tested in tests/functional/test_attention_maps.py."""

from __future__ import annotations

import pytest

from sparse_xp.errors import UserError
from sparse_xp.modifiers import AttentionDistillation
from sparse_xp.run import run
from tests.runs import SHORT, configure, history

pytestmark = pytest.mark.usefixtures("trained_only")

ATTENTION = "recipe.modifiers.attention"
WORDS = (*SHORT, "task=sst2", "recipe=dense", "data.embedded_train_rows=64")


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    place = tmp_path_factory.mktemp("dense")
    run(configure(*WORDS, "model.init_seed=1", "train.epochs=1"), place / "dense")
    return place / "dense"


def attentive(dense, *more):
    """A run of twelve steps whose attention is compared."""
    teacher = ("teacher=checkpoint", f"teacher.path={dense}", "teacher.distillation.hardness=0")
    return configure(*WORDS, *teacher, f"+modifier@{ATTENTION}=AttentionDistillation", *more)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_attention_is_learnt(dense, tmp_path, precision, capsys):
    config = attentive(
        dense, f"{ATTENTION}.gain=50", f"train.precision={precision}", f"{ATTENTION}.end=9 steps", "model.dropout=0"
    )
    run(config, tmp_path / "run")
    assert "runs at every step (the recipe compares attention)" in " ".join(capsys.readouterr().out.split())
    lines = [line for line in history(tmp_path / "run") if "loss" in line]
    losses = [line["loss_attention"] for line in lines if "loss_attention" in line]
    assert len(losses) == 9
    assert losses[-1] < 0.7 * losses[0]
    for line in lines:
        assert line["loss"] == pytest.approx(line["loss_task"] + 50 * line.get("loss_attention", 0), rel=1e-4)


def test_heads_of_a_smaller_student_are_averaged(dense, tmp_path):
    words = ("model.heads=2", f"{ATTENTION}.student_layers=[0]", f"{ATTENTION}.teacher_layers=[1]")
    with pytest.raises(UserError, match=r"layer 0 of the student has 2 heads, layer 1 of the teacher 4\. Write"):
        run(attentive(dense, *words), tmp_path / "refused")
    run(attentive(dense, *words, f"{ATTENTION}.average_heads=true", f"{ATTENTION}.distance=mse"), tmp_path / "run")
    assert all(line["loss_attention"] > 0 for line in history(tmp_path / "run") if "loss" in line)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((f"{ATTENTION}.student_layers=[2]",), r"student_layers: the student has no layer 2. There are: 0, 1"),
        ((f"{ATTENTION}.teacher_layers=[0,1]",), "1 layers of the student and 2 of the teacher. Name as many"),
    ],
)
def test_what_cannot_be_compared(dense, tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        run(attentive(dense, *more), tmp_path / "run")


def test_a_run_without_a_teacher_is_refused(tmp_path):
    with pytest.raises(UserError, match="the run has no teacher: write teacher=dense"):
        run(configure(*WORDS, f"+modifier@{ATTENTION}=AttentionDistillation"), tmp_path / "run")


@pytest.mark.parametrize(
    ("field", "value"), [("gain", 0.0), ("distance", "cosine"), ("student_layers", []), ("teacher_layers", [])]
)
def test_refusals_name_the_key(field, value):
    with pytest.raises(ValueError, match=f"AttentionDistillation.{field}"):
        AttentionDistillation(**{field: value})
