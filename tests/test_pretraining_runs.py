"""Prune once for all, in short: prepare a teacher, prune, break and resume, transfer with the zeros kept."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from sparse_xp import Pipeline
from sparse_xp.errors import UserError
from sparse_xp.result import Result
from sparse_xp.run import run
from sparse_xp.training import checkpoint
from tests.runs import SHORT, configure, history, without_export

ROWS = ("data.embedded_train_rows=64", "data.embedded_eval_rows=16", "task.max_length=48")
TEXT = (*SHORT, *ROWS, "task=wikipedia")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    place = tmp_path_factory.mktemp("prepared")
    with without_export():
        run(configure(*TEXT, "recipe=teacher_preparation", f"data.cache={place}/cache"), place / "teacher")
    return place


def pruning(place, *words):
    return configure(
        *TEXT,
        "recipe=pruneofa90",
        f"model.checkpoint={place}/teacher",
        f"data.cache={place}/cache",
        *words,
    )


@pytest.fixture(scope="module")
def student(prepared):
    run(pruning(prepared), prepared / "student")
    return prepared / "student"


def test_the_teacher_has_heads_and_learns(prepared):
    metrics = [line["metrics"] for line in history(prepared / "teacher") if "metrics" in line]
    assert metrics[-1]["mlm_loss"] < metrics[0]["mlm_loss"]
    weights = load_file(prepared / "teacher/model/model.safetensors")
    assert "cls.seq_relationship.weight" in weights
    assert "cls.predictions.transform.dense.weight" in weights


def test_the_student_is_sparse_in_encoder_and_pooler_and_nowhere_else(student):
    weights = load_file(student / "model/model.safetensors")
    sparse = {name: (w == 0).float().mean().item() for name, w in weights.items() if w.ndim == 2}
    body = {name for name in sparse if ".layer." in name or "pooler" in name}
    assert len(body) == 2 * 6 + 1
    assert {name: round(sparse[name], 3) for name in body} == dict.fromkeys(body, 0.9)
    assert all(share < 0.01 for name, share in sparse.items() if name not in body)
    steps = [line for line in history(student) if "loss_distillation" in line]
    assert steps[-1]["loss"] == pytest.approx(0.5 * steps[-1]["loss_task"] + 0.5 * steps[-1]["loss_distillation"])


def test_the_exported_file_fills_in_masks(student):
    result = Result.read(student / "result.json")
    assert result.deployment.metrics["mlm_loss"] == pytest.approx(result.metrics["mlm_loss"], abs=1e-4)
    pipeline = Pipeline(student)
    [first, second] = pipeline(text="The plot is [MASK]. [MASK] loved it.")
    assert (first["start"], first["end"]) == (12, 18)
    assert second["start"] == 20
    assert 0 < first["score"] <= 1
    [most, _] = pipeline(text="The plot is [MASK]. [MASK] loved it.", top=3)
    assert [most["tokens"][0]["token"], len(most["tokens"])] == [first["token"], 3]
    assert pipeline(text="The plot is dull.") == []


def test_transfer_keeps_the_zeros(student):
    words = ("task=sst2", "recipe=pruneofa_transfer", "teacher=none", f"model.checkpoint={student}")
    config = configure(*SHORT, *words, f"data.cache={student.parent}/cache", "train.epochs=1")
    with without_export():
        result = run(config, student.parent / "transfer")
    assert result.sparsity.prunable == pytest.approx(0.9, abs=1e-3)
    before, after = (load_file(each / "model/model.safetensors") for each in (student, student.parent / "transfer"))
    for name, weight in before.items():
        if ".layer." in name and weight.ndim == 2:
            assert torch.equal(weight == 0, after[name] == 0)
    assert torch.equal(before["bert.pooler.dense.weight"] == 0, after["bert.pooler.dense.weight"] == 0)


@pytest.mark.slow
class Power(Exception):
    """The plug is pulled."""


@pytest.mark.slow
def test_pruning_upstream_resumes_exactly(prepared, tmp_path, monkeypatch):
    """Masks of tokens, masks of weights with what is behind them, drawn tokens, and rewound rates, in mid-epoch."""
    config = pruning(
        prepared,
        "train.gradient_accumulation_steps=2",
        "train.save_every=5 steps",
        "train.eval_every=8 steps",
        "train.epochs=2",
        "sparsity.update_frequency=3 steps",
        "task.whole_word_mask=true",
        "teacher.distillation.token_share=0.5",
    )
    real, calls = checkpoint.save, []

    def fail_after_the_first(this):
        if calls:
            raise Power
        real(this)
        calls.append(this.progress.step)

    with without_export():
        run(config, tmp_path / "straight")
        monkeypatch.setattr(checkpoint, "save", fail_after_the_first)
        with pytest.raises(Power):
            run(config, tmp_path / "broken")
        monkeypatch.setattr(checkpoint, "save", real)
        torch.manual_seed(99)
        run(config, tmp_path / "broken")
    assert (tmp_path / "straight/history.jsonl").read_text() == (tmp_path / "broken/history.jsonl").read_text()
    one, other = (load_file(tmp_path / name / "model/model.safetensors") for name in ("straight", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_without_trained_heads_is_no_student(tmp_path):
    config = configure(*TEXT, "recipe=pruneofa90", f"data.cache={tmp_path}/cache")
    with pytest.raises(UserError, match="recipe=teacher_preparation"):
        run(config, tmp_path / "run")
