"""What travels with ``model.onnx``, and what happens when a part of it does not."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import onnxruntime
import pytest
import yaml
from safetensors.numpy import load_file

from sparse_xp import bundle
from sparse_xp.errors import UserError
from sparse_xp.result import Result
from tests.runs import configure


def test_the_folder_of_a_run(deployed):
    directory = deployed("squad")
    names = {path.relative_to(directory / "deployment").as_posix() for path in (directory / "deployment").rglob("*.*")}
    samples = {f"samples/{what}-000{i}.npz" for what in ("inp", "out") for i in range(bundle.SAMPLES)}
    assert {"model.onnx", "config.json", "tokenizer.json", "task.json", "recipe.yaml", "model_card.md"} <= names
    assert {name for name in names if name.startswith("samples/")} == samples
    assert not [name for name in names if name.endswith(".tmp")]
    recipe = (directory / "deployment/recipe.yaml").read_text()
    assert recipe == (directory / "recipe.yaml").read_text()
    assert yaml.safe_load(recipe)["recipe"] == "gradual80"


def test_samples_are_what_the_graph_takes_and_gives_and_hold_no_text(deployed):
    folder = deployed("conll2003") / "deployment"
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    for number in range(bundle.SAMPLES):
        inputs = dict(np.load(folder / f"samples/inp-{number:04d}.npz"))
        outputs = dict(np.load(folder / f"samples/out-{number:04d}.npz"))
        assert list(inputs) == [each.name for each in session.get_inputs()]
        assert list(outputs) == [each.name for each in session.get_outputs()]
        assert all(value.dtype == np.int64 and value.shape[0] == 1 for value in inputs.values())
        for name, value in zip(outputs, session.run(None, inputs), strict=True):
            np.testing.assert_allclose(outputs[name], value, atol=1e-5)


def test_checksums_are_those_of_sha256sum_and_of_every_other_file(deployed):
    folder = deployed("sst2") / "deployment"
    checked = subprocess.run(["sha256sum", "-c", "checksums.txt"], cwd=folder, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(checked.stdout.splitlines()) == len(files) - 1
    bundle.check_files(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "samples/out-0001.npz"])
def test_a_file_that_is_missing_or_another(folder, name):
    place = folder("sst2")
    whole = (place / name).read_bytes()
    (place / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=rf"{name} is not what was exported"):
        bundle.check_files(place)
    (place / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing"):
        bundle.check_files(place)


def test_a_folder_of_an_earlier_version(folder):
    place = folder("sst2")
    for name, read in (("checksums.txt", bundle.check_files), ("task.json", bundle.read_task)):
        (place / name).unlink()
        with pytest.raises(UserError, match=rf"has no {name}: it is incomplete or of an earlier version"):
            read(place)


@pytest.mark.parametrize(
    "change", [lambda told: told.update(kind="Summary"), lambda told: told["fields"].update(extra=1)]
)
def test_a_task_of_another_version(folder, change):
    path = folder("sst2") / "task.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"is not what this version of sparse_xp writes"):
        bundle.read_task(path.parent)


def test_the_task_comes_back_with_its_labels(deployed):
    task, pad = bundle.read_task(deployed("pairs") / "deployment")
    asked = configure("task=mnli", "profile=embedded").task
    assert (task.text, task.text_pair, task.classes) == (asked.text, asked.text_pair, asked.classes)
    assert (task.max_length, pad) == (asked.max_length, 0)
    told = json.loads((deployed("pairs") / "deployment/task.json").read_text())
    assert told["labels"] == asked.classes
    assert not set(bundle.TRAINING) & set(told["fields"])


def test_bytes_that_are_not_zero(deployed):
    result = Result.read(deployed("squad") / "result.json")
    weights = load_file(deployed("squad") / "model/model.safetensors").values()
    nonzero = 4 * sum(np.count_nonzero(weight) for weight in weights)
    assert nonzero <= result.deployment.nonzero_bytes < nonzero + 5000  # and 512 positions and a few constants


def test_a_result_of_an_earlier_version_still_reads(deployed, tmp_path):
    raw = json.loads((deployed("squad") / "result.json").read_text())
    del raw["deployment"]["nonzero_bytes"]
    (tmp_path / "result.json").write_text(json.dumps(raw))
    assert Result.read(tmp_path / "result.json").deployment.nonzero_bytes is None


def test_where_a_deployment_is(deployed, tmp_path):
    run = deployed("sst2")
    assert bundle.locate({"run": str(run)}) == bundle.deployment_of(run) == run / "deployment"
    assert bundle.locate({"model": str(run / "deployment")}) == run / "deployment"


def test_where_there_is_none(deployed, tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").write_text("")
    for words, message in (
        ({}, "Say run=DIR"),
        ({"run": "a", "model": "b"}, "Say run=DIR"),
        ({"run": "nowhere"}, "nowhere holds no run: no such folder."),
        ({"run": str(tmp_path)}, "holds no run."),
        ({"run": str(deployed("sst2") / "deployment")}, "holds no run."),
        ({"model": str(tmp_path)}, r"holds no model\.onnx"),
        ({"run": str(tmp_path / "begun")}, "holds an unfinished run: issue its command again first"),
    ):
        with pytest.raises(UserError, match=message):
            bundle.locate(words)
