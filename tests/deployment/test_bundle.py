"""What travels with ``model.onnx``, and what happens when a part of it does not."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import onnxruntime
import pytest
import yaml
from safetensors.numpy import load_file

from sparse_xp.deployment import bundle
from sparse_xp.deployment import folder as folders
from sparse_xp.deployment.onnx_file import EXPORT_AGAIN
from sparse_xp.deployment.samples import SAMPLES
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import file_sha256
from sparse_xp.result import Result
from tests.runs import configure


def test_the_folder_of_a_run(deployed):
    directory = deployed("squad")
    names = {path.relative_to(directory / "deployment").as_posix() for path in (directory / "deployment").rglob("*.*")}
    samples = {f"samples/{what}-000{i}.npz" for what in ("inp", "out") for i in range(SAMPLES)}
    assert {"model.onnx", "config.json", "tokenizer.json", "task.json", "recipe.yaml", "model_card.md"} <= names
    assert {name for name in names if name.startswith("samples/")} == samples
    assert not [name for name in names if name.endswith(".tmp")]
    recipe = (directory / "deployment/recipe.yaml").read_text()
    assert recipe == (directory / "recipe.yaml").read_text()
    assert yaml.safe_load(recipe)["recipe"] == "gradual80"


def test_samples_are_what_the_graph_takes_and_gives_and_hold_no_text(deployed):
    folder = deployed("conll2003") / "deployment"
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    for number in range(SAMPLES):
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
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert len(checked.stdout.splitlines()) == len(files) - 1
    folders.check_bundle_files(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "samples/out-0001.npz"])
def test_a_file_that_is_missing_or_another(folder, name):
    place = folder("sst2")
    whole = (place / name).read_bytes()
    (place / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=rf"{name} is not what was written"):
        folders.check_bundle_files(place)
    (place / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing"):
        folders.check_bundle_files(place)


def without(name):
    """The list of checksums without a file."""
    return lambda lines, place: [line for line in lines if line.split()[1] != name]


def another(name):
    """The list of checksums with one line more, of a file beside the folder, whose checksum is right."""

    def change(lines, place):
        (place.parent / "x").write_text("x")
        return [*lines, f"{file_sha256(place.parent / 'x')}  {name.format(place.parent)}"]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((without(name), rf"checksums\.txt does not list {name}") for name in folders.REQUIRED),
        (without("samples/out-0003.npz"), r"checksums\.txt does not list samples/out-0003\.npz"),
        (without("recipe.yaml"), r"does not list recipe\.yaml"),
        (lambda lines, place: [], "does not list config.json"),
        (lambda lines, place: lines[:-2], "does not list"),
        (lambda lines, place: [*lines[:-1], lines[-1][:40]], "checksums.txt is damaged .the line .* is not a digest"),
        (lambda lines, place: [*lines[:-1], lines[-1][:66]], "checksums.txt is damaged .the line .* is not a digest"),
        (lambda lines, place: [*lines[:-1], lines[-1][:-3]], "does not list"),
        (lambda lines, place: [*lines, f"{'0' * 64}  other.txt"], "other.txt is missing"),
        (lambda lines, place: ["0" * 64 + line[64:] for line in lines], "is not what was written"),
        (another("../x"), r"'\.\./x' is no name of a file in the folder"),
        (another("samples/../../x"), "is no name of a file in the folder"),
        (another("{}/x"), "is no name of a file in the folder"),
        (another("C:\\x"), "is no name of a file in the folder"),
        (another("..\\x"), "is no name of a file in the folder"),
        (another("\0"), "no name of a file in the folder"),
    ],
)
def test_a_list_of_checksums_that_is_not_whole(folder, change, message):
    place = folder("sst2")
    path = place / "checksums.txt"
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines(), place)))
    with pytest.raises(UserError, match=message) as raised:
        folders.check_bundle_files(place)
    assert str(place) in str(raised.value)
    assert "Copy the whole folder again, or export it again." in str(raised.value)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda path: path.write_bytes(b"\xff\xfe"), r"checksums\.txt is not UTF-8 \(byte 0\)"),
        (lambda path: path.mkdir(), r"checksums\.txt is a directory, and should be a file"),
        (lambda path: path.symlink_to(path), r"checksums\.txt cannot be read: too many levels"),
        (lambda path: None, r"checksums\.txt is missing"),
    ],
)
def test_no_list_of_checksums(folder, made, message):
    path = folder("sst2") / "checksums.txt"
    path.unlink()
    made(path)
    with pytest.raises(UserError, match=message):
        folders.check_bundle_files(path.parent)


@pytest.mark.parametrize("name", ["task.json", "samples/inp-0000.npz"])
def test_a_directory_or_a_ring_of_links_in_the_place_of_a_file(folder, name):
    path = folder("sst2") / name
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=f"{name} is a directory, and should be a file"):
        folders.check_bundle_files(path.parent.parent if "/" in name else path.parent)
    path.rmdir()
    path.symlink_to(path)
    with pytest.raises(UserError, match=f"{name} cannot be read: too many levels"):
        folders.check_bundle_files(path.parent.parent if "/" in name else path.parent)


def test_a_file_that_cannot_be_read(folder, monkeypatch):
    place = folder("sst2")

    def fail(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("sparse_xp.files.checksums.file_sha256", fail)
    with pytest.raises(UserError, match=r"config\.json cannot be read: permission denied"):
        folders.check_bundle_files(place)


def test_other_files_may_lie_in_a_folder(folder):
    place = folder("sst2")
    (place / "notes.txt").write_text("x")
    (place / "samples/mine.npz").write_text("x")
    folders.check_bundle_files(place)
    (place / "model.xml").write_text("x")
    with pytest.raises(UserError, match=r"does not list model\.xml"):
        folders.check_bundle_files(place)


#: what a field may be in a damaged file, whatever it should be
ODD = [None, [], {}, "x", -1, 0, 1.5, True, [1], 10**30, 10**400, float("inf"), float("nan"), "\ud800", {"a": 1}]


def places(told, path=()):
    """The ways to every value in an object."""
    for name, value in told.items() if isinstance(told, dict) else ():
        yield (*path, name)
        yield from places(value, (*path, name))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("task.json", bundle.read_task),
        ("deployment.json", bundle.read_deployment),
        ("config.json", bundle.max_tokens),
        ("config.json", bundle.vocabulary_size),
    ],
)
def test_every_field_with_every_odd_value(folder, name, read):
    path = folder("sst2") / name
    whole = path.read_text()
    refused = []
    for way in places(json.loads(whole)):
        for odd in (*ODD, places):
            told = json.loads(whole)
            inner = told
            for step in way[:-1]:
                inner = inner[step]
            if odd is places:
                del inner[way[-1]]
            else:
                inner[way[-1]] = odd
            path.write_text(json.dumps(told))
            try:
                read(path.parent)
            except UserError as error:
                refused.append(str(error))
    assert len(refused) > 10
    assert all(each.startswith(f"{path} ") and each.endswith(EXPORT_AGAIN) for each in refused)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("task.json", lambda told: told.update(kind="Summary"), "kind: expected one of PairPretraining"),
        ("task.json", lambda told: told.update(kind=[]), "kind: expected one of"),
        ("task.json", lambda told: told.update(pad_token_id=-1), "pad_token_id: expected the id of a token"),
        ("task.json", lambda told: told.update(fields=[]), "expected an object for a TextClassification"),
        ("task.json", lambda told: told["fields"].update(extra=1), "extra: a TextClassification has no such field"),
        ("task.json", lambda told: told["fields"].update(max_length="9"), "max_length: a value of another type"),
        ("task.json", lambda told: told["fields"].update(classes=["a", "\ud800"]), "classes: a value of another type"),
        ("task.json", lambda told: told["fields"].pop("name"), "has no 'name'"),
        ("deployment.json", lambda told: told.pop("cpu"), "has no 'cpu'"),
        ("deployment.json", lambda told: told["limits"].update(max_abs_diff="1"), "max_abs_diff: a value of another"),
        ("deployment.json", lambda told: told["limits"].update(max_abs_diff=float("inf")), "max_abs_diff: a value of"),
    ],
)
def test_a_file_of_another_version(folder, name, change, message):
    path = folder("sst2") / name
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    read = bundle.read_task if name == "task.json" else bundle.read_deployment
    with pytest.raises(UserError, match=rf"{name} .*{message}.*\. {EXPORT_AGAIN}"):
        read(path.parent)


def test_the_task_comes_back_with_its_labels(deployed):
    task, pad = bundle.read_task(deployed("pairs") / "deployment")
    asked = configure("task=mnli", "profile=embedded").task
    assert (task.text, task.text_pair, task.classes) == (asked.text, asked.text_pair, asked.classes)
    assert (task.max_length, pad) == (asked.max_length, 0)
    told = json.loads((deployed("pairs") / "deployment/task.json").read_text())
    assert told["labels"] == asked.classes
    training_only = {"revision", "train_split", "validation_share", "max_train_samples", "max_eval_samples", "group"}
    assert training_only == task.training_only_fields()
    assert not {*training_only, "quant", "pruneofa", "pruneofa_quant"} & set(told["fields"])


def test_a_task_of_an_earlier_version_still_reads(folder):
    path = folder("sst2") / "task.json"
    task = bundle.read_task(path.parent)
    told = json.loads(path.read_text())
    told["fields"] |= {"quant": {"epochs": 13.0}, "pruneofa": {"epochs": 9.0}, "pruneofa_quant": {}}
    path.write_text(json.dumps(told))
    assert bundle.read_task(path.parent) == task


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
    assert folders.bundle_from_options({"run": str(run)}) == folders.find_bundle(run) == run / "deployment"
    assert folders.bundle_from_options({"model": str(run / "deployment")}) == run / "deployment"


def test_where_there_is_none(deployed, tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").write_text("")
    for words, message in (
        ({}, "Give run=DIR"),
        ({"run": "a", "model": "b"}, "Give run=DIR"),
        ({"run": "nowhere"}, "nowhere holds no run: no such folder."),
        ({"run": str(tmp_path)}, "holds no run."),
        ({"run": str(deployed("sst2") / "deployment")}, "holds no run."),
        ({"model": str(tmp_path)}, r"holds no model\.onnx"),
        ({"run": str(tmp_path / "begun")}, "holds an unfinished run: issue its command again first"),
    ):
        with pytest.raises(UserError, match=message):
            folders.bundle_from_options(words)
