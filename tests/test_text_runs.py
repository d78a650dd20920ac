"""Whole runs of text classification beyond one label of a sentence: pairs, several labels, numbers, several splits."""

from __future__ import annotations

import json

import pytest
import yaml

from sparse_xp.config import with_teacher
from sparse_xp.export_command import export_run
from sparse_xp.run import run
from tests.runs import SHORT, configure, history, without_export

FULL = ("profile=embedded", "log=none")
SEVERAL = ("task=sst2", "task.problem=multi_label", "task.classes=[blames,praises,insists]", "task.metrics=[accuracy]")
TWO = ("task=sst2", "task.problem=multi_label", "task.classes=[blames,praises]")
NUMBERS = ("task=sst2", "task.problem=regression", "task.classes=[]")


@pytest.mark.parametrize(
    ("words", "metrics"),
    [
        (SEVERAL, ["f1_micro", "accuracy"]),
        pytest.param(NUMBERS, ["pearson"], marks=pytest.mark.slow),
        pytest.param(("task=mnli",), None, marks=pytest.mark.slow),
    ],
    ids=["several", "numbers", "splits"],
)
def test_teacher_student_and_deployment(tmp_path, words, metrics):
    metrics = metrics or ["accuracy", "accuracy_mismatched"]
    with without_export():
        dense = run(configure(*SHORT, *words, "recipe=dense"), tmp_path / "dense")
    assert list(dense.metrics) == metrics
    config = with_teacher(configure(*SHORT, *words, "recipe=gradual80"), tmp_path / "dense")
    result = run(config, tmp_path / "sparse")
    assert result.sparsity.prunable == pytest.approx(0.8, abs=1e-4)
    assert list(result.deployment.metrics) == metrics
    assert result.deployment.metrics == pytest.approx(result.metrics, abs=0.5)
    lines = [line for line in history(tmp_path / "sparse") if "loss" in line]
    assert lines[-1]["loss_distillation"] < lines[0]["loss_distillation"]
    names = config.task.label_names or ["LABEL_0"]
    for place in ("model", "deployment"):
        stored = json.loads((tmp_path / "sparse" / place / "config.json").read_text(encoding="utf-8"))
        assert list(stored["id2label"].values()) == names
        assert stored["problem_type"] == config.task.model_options["problem_type"]


@pytest.mark.slow
def test_classes_read_from_the_data_stay_with_the_run(tmp_path):
    with without_export():
        run(configure(*SHORT, "task=qnli", "recipe=dense", "train.epochs=1", "task.classes=[]"), tmp_path / "run")
    stored = yaml.safe_load((tmp_path / "run/config.yaml").read_text(encoding="utf-8"))
    assert stored["task"]["classes"] == ["0", "1"]
    export_run(tmp_path / "run", [], out=tmp_path / "again")
    assert (tmp_path / "again/model.onnx").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "at_least"),
    [(("task=qqp",), 85), (("task=mnli",), 80), (("task=qnli",), 85), (TWO, 85), (NUMBERS, 70)],
    ids=["qqp", "mnli", "qnli", "several", "numbers"],
)
def test_dense_learns_and_untrained_does_not(tmp_path, words, at_least):
    untrained = (*FULL, *words, "recipe=dense", "train.epochs=0.01", "train.learning_rate=0")
    before = run(configure(*untrained), tmp_path / "untrained")
    dense = run(configure(*FULL, *words, "recipe=dense"), tmp_path / "dense")
    assert dense.metrics[dense.metric] > at_least > before.metrics[before.metric] + 15
