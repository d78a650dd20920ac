"""Weights in ``model.onnx.data``, as a model above 2 GiB has them, through every command that touches a file."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import onnx
import pytest
from onnx import external_data_helper, numpy_helper

from sparse_xp import Pipeline, benchmark_command, export_command, predict, verify
from sparse_xp.deployment.engines import open_session
from sparse_xp.deployment.export import compressed_size, nonzero_size
from sparse_xp.deployment.graph import densify, inspect_graph
from sparse_xp.deployment.onnx_file import check_self_contained, files_of
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import read_checksums
from sparse_xp.run import run
from tests.runs import SHORT, configure

ROWS = [{"sentence": "a good film"}, {"sentence": "a bad one"}]


@pytest.fixture(scope="module")
def split(deployed, tmp_path_factory):
    """A deployment folder with its weights beside the graph; the run has the same model in one file."""
    out = tmp_path_factory.mktemp("external") / "out"
    export_command.main([f"run={deployed('sst2')}", f"out={out}", "export.external_data=true"])
    return out


@pytest.fixture
def copied(split, tmp_path):
    return shutil.copytree(split, tmp_path / "copy")


def test_the_weights_stand_beside_the_graph(split, deployed):
    whole = deployed("sst2") / "deployment/model.onnx"
    assert [path.name for path in files_of(split / "model.onnx")] == ["model.onnx", "model.onnx.data"]
    assert files_of(whole) == [whole]
    assert (split / "model.onnx").stat().st_size < whole.stat().st_size / 2
    assert not re.search(rb"/(work|tmp|home|root)/", (split / "model.onnx").read_bytes())  # no traces of this machine
    assert "model.onnx.data" in read_checksums(split)


def test_figures_are_those_of_both_files(split, deployed):
    whole = deployed("sst2") / "deployment/model.onnx"
    path = split / "model.onnx"
    assert inspect_graph(path) == inspect_graph(whole)
    assert nonzero_size(path) == nonzero_size(whole)
    assert compressed_size(path) == pytest.approx(compressed_size(whole), rel=0.2)
    card = (split / "model_card.md").read_text()
    total = sum(file.stat().st_size for file in files_of(path)) / 1e6
    assert f"{total:.2f} MB" in card


def test_it_answers_as_the_file_that_holds_its_weights(copied, deployed):
    answers = Pipeline(deployed("sst2") / "deployment")(ROWS)
    assert Pipeline(copied, verify=True)(ROWS) == answers
    verify.main([str(copied)])


def test_predict_and_benchmark_read_it(copied, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("sentence\na good film\n")
    predict.main([f"model={copied}", f"file={tmp_path}/rows.csv", f"out={tmp_path}/answers.jsonl"])
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 1
    words = ["lengths=8", "batch=1", "rounds=2", "engine=onnxruntime", f"out={tmp_path}/benchmark"]
    benchmark_command.main([f"model={copied}", *words])
    assert json.loads((tmp_path / "benchmark/benchmark.json").read_text())["zeros"] > 0.5


def test_the_dense_copy_has_a_file_of_its_own(copied, tmp_path):
    densify(copied / "model.onnx", tmp_path / "dense.onnx")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["dense.onnx", "dense.onnx.data"]
    assert inspect_graph(tmp_path / "dense.onnx").zeros < 1e-4
    assert inspect_graph(copied / "model.onnx").zeros > 0.5
    open_session(tmp_path / "dense.onnx")


def test_a_file_of_integers(tmp_path):
    """Post-training quantization of the same model, written in both ways."""
    run(configure(*SHORT, "task=sst2", "quantization=ptq_int8", "teacher=none", "recipe=dense"), tmp_path / "run")
    whole = tmp_path / "run/deployment"
    export_command.main([f"run={tmp_path}/run", f"out={tmp_path}/out", "export.external_data=true"])
    assert (tmp_path / "out/model.onnx.data").exists()
    assert inspect_graph(tmp_path / "out/model.onnx") == inspect_graph(whole / "model.onnx")
    assert Pipeline(tmp_path / "out", verify=True)(ROWS) == Pipeline(whole)(ROWS)


# What is wrong with the second file


def refused(folder, message):
    path = folder / "model.onnx"
    for read in (check_self_contained, open_session, inspect_graph):
        with pytest.raises(UserError, match=message):
            read(path)
    with pytest.raises(UserError):
        Pipeline(folder, verify=True)


def test_a_second_file_that_is_missing(copied):
    (copied / "model.onnx.data").unlink()
    refused(copied, r"model\.onnx\.data is missing\. Copy it together with model\.onnx")


def test_a_second_file_that_is_cut_short(copied):
    os.truncate(copied / "model.onnx.data", 1000)
    refused(copied, r"model\.onnx\.data .*cut short")


def test_a_second_file_that_is_a_link(copied, tmp_path):
    shutil.move(copied / "model.onnx.data", tmp_path / "elsewhere")
    (copied / "model.onnx.data").symlink_to(tmp_path / "elsewhere")
    refused(copied, r"model\.onnx\.data .*link")


def test_a_second_file_that_was_changed(copied):
    with (copied / "model.onnx.data").open("r+b") as file:
        file.write(b"\xff" * 64)
    with pytest.raises(UserError, match=r"model\.onnx\.data is not what was written"):
        verify.verify(copied)


@pytest.mark.parametrize("value", ["-4", "1e9", "", "9" * 30, "\u0661"])
def test_a_place_in_the_second_file_that_is_no_number(copied, value):
    model = onnx.load(copied / "model.onnx", load_external_data=False)
    weight = next(each for each in model.graph.initializer if external_data_helper.uses_external_data(each))
    next(entry for entry in weight.external_data if entry.key == "offset").value = value
    (copied / "model.onnx").write_bytes(model.SerializeToString())
    refused(copied, r"model\.onnx\.data ")


def test_values_are_mapped_at_their_place(copied):
    """The values that are read for figures are those that onnx reads."""
    from sparse_xp.deployment.graph import load_onnx, read_weight

    path = copied / "model.onnx"
    expected = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    for weight in load_onnx(path).graph.initializer:
        values = read_weight(path, weight)
        assert values.dtype == expected[weight.name].dtype
        assert np.array_equal(values, expected[weight.name])
