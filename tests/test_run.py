"""Whole runs on the embedded data: what they learn, what pruning costs, what they leave."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from sparse_xp.config import with_teacher
from sparse_xp.errors import UserError
from sparse_xp.result import Result
from sparse_xp.run import run
from tests.runs import SHORT, configure, history, without_export

CHANCE = {"squad": 30, "sst2": 60}
PASS = {"squad": 80, "sst2": 85}
#: three words are soon put together: where nothing is lost there is nothing to wait for
SHORTER = {"squad": [], "sst2": ["train.epochs=4"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


class Cells:
    """The results of both tasks under four recipes, made when asked for; full length where learning counts."""

    def __init__(self, place):
        self.place, self.found = place, {}

    def __getitem__(self, cell):
        if cell not in self.found:
            self.found[cell] = self.make(*cell)
        return self.found[cell]

    def make(self, task, name):
        more = {
            "dense": ["recipe=dense"],
            "gradual80": ["recipe=gradual80", "train.epochs=2"],
            "gradual80-alone": ["recipe=gradual80", "teacher=none", *SHORTER[task]],
            "pruned80": ["recipe=pruned80", "train.epochs=1"],
        }[name]
        config = configure(f"task={task}", "profile=embedded", "log=none", f"data.cache={self.place}/cache", *more)
        if config.teacher.source == "dense":
            assert self[task, "dense"]
            config = with_teacher(config, self.place / task / "dense")
        with nullcontext() if name in ("dense", "gradual80") else without_export():
            return run(config, self.place / task / name)


@pytest.fixture(scope="module")
def cells(place):
    return Cells(place)


@pytest.mark.parametrize("task", ["squad", pytest.param("sst2", marks=pytest.mark.slow)])
def test_dense_learns_and_untrained_does_not(cells, place, task):
    dense = cells[task, "dense"]
    assert dense.metrics[dense.metric] > PASS[task]
    config = configure(
        f"task={task}", "profile=embedded", "log=none", "recipe=dense", "train.epochs=0.01", "train.learning_rate=0",
        f"data.cache={place}/cache",
    )  # fmt: skip
    with without_export():
        untrained = run(config, place / task / "untrained")
    assert untrained.metrics[untrained.metric] < CHANCE[task]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "cost"), [("squad", 1), ("sst2", 0)])  # three words are soon put together
def test_pruning_costs(cells, task, cost):
    dense, alone = cells[task, "dense"], cells[task, "gradual80-alone"]
    assert alone.metrics[dense.metric] <= dense.metrics[dense.metric] - cost
    assert alone.metrics[dense.metric] > CHANCE[task]


@pytest.mark.parametrize(
    ("task", "recipe"),
    [
        *(("squad", "gradual80"), ("squad", "pruned80")),
        pytest.param("squad", "gradual80-alone", marks=pytest.mark.slow),
        *(
            pytest.param("sst2", recipe, marks=pytest.mark.slow)
            for recipe in ("gradual80", "gradual80-alone", "pruned80")
        ),
    ],
)
def test_sparsity_lands_on_the_target(cells, place, task, recipe):
    found = cells[task, recipe].sparsity
    assert found.prunable == pytest.approx(0.8, abs=1e-4)
    assert all(share == pytest.approx(0.8, abs=2e-4) for share in found.layers.values())
    assert len(found.layers) == 12  # 2 layers of 6 matrices
    assert found.model < found.encoder < found.prunable
    # and the file that is delivered has the zeros that the result claims
    from safetensors.torch import load_file

    weights = load_file(place / task / recipe / "model/model.safetensors")
    zeros = sum(int((weights[name] == 0).sum()) for name in found.layers)
    assert zeros / sum(weights[name].numel() for name in found.layers) == found.prunable


def test_run_directory(cells, place):
    expected = cells["squad", "gradual80"]
    directory = place / "squad/gradual80"
    assert {path.name for path in directory.iterdir()} == {
        ".sparse_xp", "inputs.json", "config.yaml", "recipe.yaml", "history.jsonl", "model", "deployment", "report.md",
        "result.json",
    }  # fmt: skip
    assert {"model.onnx", "config.json", "tokenizer.json"} <= {p.name for p in (directory / "deployment").iterdir()}
    assert not list((directory / "deployment").glob("*.data"))
    recipe = yaml.safe_load((directory / "recipe.yaml").read_text())
    assert recipe["modifiers"]["sparsity"]["kind"] == "MagnitudePruning"
    assert recipe["modifiers"]["sparsity"]["final_sparsity"] == 0.8
    result = Result.read(directory / "result.json")
    assert result == expected
    raw = json.loads((directory / "result.json").read_text())
    assert {
        "task",
        "model",
        "recipe",
        "profile",
        "seed",
        "metrics",
        "deployment",
        "sparsity",
        "training",
        "teacher",
    } < set(raw)
    assert {"command", "git", "versions", "config_hash", "data_fingerprint"} == set(raw["provenance"])
    lines = [line for line in history(directory) if "loss" in line]
    assert {"step", "epoch", "loss", "loss_task", "loss_distillation", "lr", "sparsity", "grad_norm"} == set(lines[-1])
    assert lines[-1]["sparsity"] == pytest.approx(0.8, abs=1e-4)


def test_best_is_chosen_among_models_that_satisfy_the_recipe(cells, place):
    result = cells["sst2", "gradual80-alone"]
    evaluations = [line for line in history(place / "sst2/gradual80-alone") if "metrics" in line]
    assert not evaluations[0]["valid"]
    kept = next(line for line in evaluations if line["step"] == result.training.best_step)
    assert kept["valid"]
    assert kept["metrics"]["accuracy"] == max(line["metrics"]["accuracy"] for line in evaluations if line["valid"])


@pytest.mark.parametrize("task", ["squad", pytest.param("sst2", marks=pytest.mark.slow)])
def test_model_loads_with_stock_transformers_and_agrees_with_the_deployment(cells, place, task):
    import onnxruntime
    import transformers

    assert cells[task, "gradual80"]
    directory = place / task / "gradual80"
    config = configure(f"task={task}", "profile=embedded")
    model = getattr(transformers, config.task.model_class).from_pretrained(directory / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory / "deployment")
    session = onnxruntime.InferenceSession(directory / "deployment/model.onnx")
    # The order of forward, not of the tokenizer; the folder stands beside the model. Lengths are free here.
    assert [i.name for i in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    assert all(isinstance(size, str) for i in session.get_inputs() for size in i.shape)
    assert [o.name for o in session.get_outputs()] == list(config.task.outputs)
    for texts in (["the film is good ."], ["the film is good .", "a far longer text of several words , this one ."]):
        batch = tokenizer(texts, padding=True, return_tensors="np")
        ours = session.run(None, {name: batch[name].astype(np.int64) for name in batch})
        with torch.no_grad():
            theirs = model(**{name: torch.from_numpy(batch[name]).long() for name in batch})
        for mine, name in zip(ours, config.task.outputs, strict=True):
            np.testing.assert_allclose(mine, theirs[name].numpy(), atol=1e-4)
    if task == "sst2":
        assert model.config.id2label == {0: "negative", 1: "positive"}


def test_zeros_make_the_compressed_file_smaller(cells):
    dense, sparse = cells["squad", "dense"].deployment, cells["squad", "gradual80"].deployment
    assert sparse.bytes == pytest.approx(dense.bytes, rel=0.01)
    assert sparse.compressed_bytes < 0.85 * dense.compressed_bytes


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("keep_best", [True, False])
def test_precisions_and_last_checkpoint(tmp_path, precision, keep_best):
    config = configure(
        *SHORT, "task=sst2", "recipe=dense", f"train.precision={precision}", f"train.keep_best={keep_best}"
    )
    with without_export():
        result = run(config, tmp_path / "run")
    assert result.training.precision == precision
    assert result.training.steps == 24


def test_export_gate(tmp_path, monkeypatch):
    """A file that computes something else fails the run, says by how much, and is not left behind."""
    from sparse_xp.deployment import export, gate

    real = export.infer
    monkeypatch.setattr(export, "infer", lambda s, b: {k: v + 0.25 for k, v in real(s, b).items()})
    config = configure(*SHORT, "task=sst2", "recipe=dense")
    with pytest.raises(UserError, match=r"a logit differs by 0\.25"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run/deployment").exists()
    assert not (tmp_path / "run/result.json").exists()
    # With so few rows and steps a wrong file may score the same: no difference is allowed here, not even none.
    monkeypatch.setattr(export, "measure_distance", lambda *_: export.Distance(0.0, 0.0))
    monkeypatch.setattr(gate, "flips_by_rounding", lambda *_: -1.0)
    with pytest.raises(UserError, match=r"exported file scores accuracy .* apart, and -1 is allowed"):
        run(replace(config, export=replace(config.export, max_metric_diff=-1.0)), tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    # the weights are there: with the cause gone, the same command only exports
    assert run(config, tmp_path / "run").training.steps == 24


def test_wandb_offline_keeps_its_id(tmp_path):
    config = configure(*SHORT, "task=sst2", "recipe=dense", "log=default", "log.tags=[a,b]", "log.group=g")
    with without_export():
        run(config, tmp_path / "run")
    known = (tmp_path / "run/wandb_id").read_text()
    assert [path.name.endswith(known) for path in (tmp_path / "run/wandb").glob("offline-run-*")] == [True]


def test_tensorboard(tmp_path):
    with without_export():
        run(configure(*SHORT, "task=sst2", "recipe=dense", "log=tensorboard"), tmp_path / "run")
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))
