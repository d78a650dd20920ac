"""Whole runs of token classification on the embedded data: what is learnt, what pruning costs, what is left."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml

from sparse_xp.config import with_teacher
from sparse_xp.export_command import export_run
from sparse_xp.run import run
from tests.runs import SHORT, configure, history, without_export

NAMES = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
FULL = ("task=conll2003", "profile=embedded", "log=none")


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    directory = tmp_path_factory.mktemp("dense") / "run"
    return directory, run(configure(*FULL, "recipe=dense", f"data.cache={directory.parent}/cache"), directory)


def test_dense_learns_and_untrained_does_not(dense, tmp_path):
    _, result = dense
    assert list(result.metrics) == ["f1", "precision", "recall", "accuracy"]
    assert result.metrics["f1"] > 80
    words = ("recipe=dense", "train.epochs=0.01", "train.learning_rate=0")
    assert run(configure(*FULL, *words), tmp_path / "untrained").metrics["f1"] < 10


def test_the_label_map_is_saved_with_the_model_and_the_deployment(dense):
    directory, _ = dense
    for place in ("model", "deployment"):
        config = json.loads((directory / place / "config.json").read_text(encoding="utf-8"))
        assert config["id2label"] == {str(i): name for i, name in enumerate(NAMES)}
        assert config["label2id"] == {name: i for i, name in enumerate(NAMES)}


def test_stock_transformers_and_the_deployment_tag_a_sentence(dense):
    import onnxruntime
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    directory, _ = dense
    model = AutoModelForTokenClassification.from_pretrained(directory / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(directory / "deployment")
    session = onnxruntime.InferenceSession(directory / "deployment/model.onnx")
    sentence = "marlow and acmetron : the former is a large port and the latter a quiet bank .".split()
    batch = tokenizer([sentence, sentence[:1]], is_split_into_words=True, padding=True, return_tensors="np")
    [theirs] = session.run(["logits"], {name: batch[name].astype(np.int64) for name in batch})
    with torch.no_grad():
        ours = model(**{name: torch.from_numpy(batch[name]).long() for name in batch}).logits.numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    tags = [model.config.id2label[number] for number in theirs[0].argmax(-1)]
    assert tags[1:4] == ["B-LOC", "O", "B-ORG"]  # after [CLS]
    assert set(tags[4:-1]) == {"O"}


@pytest.mark.parametrize("recipe", [pytest.param("gradual80", marks=pytest.mark.slow), "pruned80"])
def test_a_sparse_student_learns_from_a_teacher(dense, recipe, tmp_path):
    directory, _ = dense
    config = with_teacher(configure(*SHORT, "task=conll2003", f"recipe={recipe}"), directory)
    result = run(config, tmp_path / "run")
    assert result.sparsity.prunable == pytest.approx(0.8, abs=1e-4)
    assert result.deployment.metrics["accuracy"] == pytest.approx(result.metrics["accuracy"], abs=0.1)
    lines = [line for line in history(tmp_path / "run") if "loss" in line]
    assert lines[-1]["loss_distillation"] < 0.8 * lines[0]["loss_distillation"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pruning_costs(seed, tmp_path):
    scores = [
        run(configure(*FULL, *words, f"seed={seed}"), tmp_path / words[0]).metrics["f1"]
        for words in (("recipe=dense",), ("recipe=gradual80", "teacher=none"))
    ]
    assert scores[0] > 85
    assert 40 < scores[1] < scores[0] - 1


@pytest.mark.slow
def test_classes_read_from_the_data_stay_with_the_run(tmp_path):
    config = configure(*SHORT, "task=conll2003", "recipe=dense", "train.epochs=1", "task.classes=[]")
    with without_export():
        run(config, tmp_path / "run")
    names = ["O", *(f"{place}-{name}" for name in ("LOC", "MISC", "ORG", "PER") for place in "BI")]
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text(encoding="utf-8"))["task"]["classes"] == names
    model = json.loads((tmp_path / "run/model/config.json").read_text(encoding="utf-8"))
    assert list(model["id2label"].values()) == names
    export_run(tmp_path / "run", [], out=tmp_path / "again")
    assert (tmp_path / "again/model.onnx").is_file()
