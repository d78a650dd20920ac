"""``python -m sparse_xp.benchmark``."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

import sparse_xp
from sparse_xp import benchmark_command
from sparse_xp.cli import run_command
from sparse_xp.cpu import this_cpu
from sparse_xp.files.checksums import write_checksums

FEW = ("lengths=[8,16]", "batch=[1,2]", "rounds=2")
CORES = min(2, os.cpu_count() or 1)


@pytest.mark.slow
def test_the_command(deployed, tmp_path, capsys):
    run = deployed("squad")
    benchmark_command.main([f"run={run}", *FEW, "engine=onnxruntime", f"out={tmp_path / 'out'}"])
    shown = capsys.readouterr().out
    assert "| onnxruntime | 1       | 2     | 16 " in shown
    told = json.loads((tmp_path / "out/benchmark.json").read_text())
    assert [(each["batch"], each["length"]) for each in told["cells"]] == [(1, 8), (1, 16), (2, 8), (2, 16)]
    assert told["zeros"] == pytest.approx(0.8, abs=0.01)
    assert told["versions"].keys() == {"onnxruntime"}
    for each in told["cells"]:
        assert each["rows_per_second"] == pytest.approx(each["batch"] / each["ms"] * 1e3)
    assert len(list(ElementTree.parse(tmp_path / "out/benchmark.svg").getroot().iter())) > 12


def test_every_engine_that_is_installed_by_default(deployed, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    copy = shutil.copytree(deployed("sst2"), tmp_path / "run")
    benchmark_command.main([f"run={copy}", *FEW])
    assert "openvino is not installed and left out: pip install 'sparse-xp[openvino]'" in capsys.readouterr().out
    assert sorted(path.name for path in (copy / "benchmark").iterdir()) == ["benchmark.json", "benchmark.svg"]


def test_openvino(deployed, tmp_path, capsys):
    pytest.importorskip("openvino")
    benchmark_command.main(
        [f"run={deployed('squad')}", *FEW, "engine=[openvino]", f"threads=[1,{CORES}]", f"out={tmp_path}"]
    )
    told = json.loads((tmp_path / "benchmark.json").read_text())
    assert {(each["engine"], each["threads"]) for each in told["cells"]} == {("openvino", 1), ("openvino", CORES)}


@pytest.fixture
def int8(folder):
    from onnxruntime.quantization import quantize_dynamic

    place = folder("sst2")
    model = onnx.load(place / "model.onnx")
    del model.graph.value_info[:]  # shapes that its own shape inference quarrels with
    quantize_dynamic(model, place / "int8.onnx", op_types_to_quantize=["MatMul"])
    (place / "int8.onnx").rename(place / "model.onnx")
    write_checksums(place)
    return place


def test_an_int8_file_needs_one_to_compare_with(deployed, int8, tmp_path, capsys):
    assert "model.onnx computes with integers" in refused(f"model={int8}")
    assert "Give against=DIR" in refused(f"model={int8}")
    words = [f"model={int8}", *FEW, "engine=onnxruntime", f"against={deployed('sst2')}", f"out={tmp_path / 'out'}"]
    benchmark_command.main(words)
    assert (
        f"times as fast as the file of {deployed('sst2')}/deployment on {this_cpu().short}" in capsys.readouterr().out
    )
    assert json.loads((tmp_path / "out/benchmark.json").read_text())["integers"] is True


def refused(*words):
    """The message of a command that is refused in one line, with one more about tracebacks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["benchmark", *words])
        with pytest.raises(SystemExit) as stopped:
            run_command(benchmark_command.main, benchmark_command.__doc__)
    [line] = str(stopped.value.code).splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["engine=onxruntime"], "engine=onxruntime: expected onnxruntime or openvino. Did you mean 'onnxruntime'?"),
        (["lenghts=[8]"], "Unknown option 'lenghts='. Did you mean 'lengths'?"),
        (["lengths=[8,1000]"], "lengths=1000: the model takes 2 to 512 tokens."),
        (["rounds=0"], "rounds=0: expected a whole number"),
        (["batch=[1,x]"], "batch=x: expected a whole number"),
        (["against=nowhere"], "nowhere holds no model.onnx: no such folder."),
    ],
)
def test_words_that_mean_nothing(deployed, words, message):
    assert message in refused(f"run={deployed('sst2')}", *words)


def test_a_run_that_is_not_finished_and_a_corrupted_folder(folder, tmp_path):
    (tmp_path / "config.yaml").write_text("")
    assert "holds an unfinished run" in refused(f"run={tmp_path}")
    place = folder("sst2")
    (place / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in refused(f"model={place}")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.onnx", lambda old: old[:1000], "model.onnx is damaged (it is cut short, or no ONNX file)"),
        ("model.onnx", lambda old: b"", "model.onnx is damaged (it is empty)"),
        ("config.json", lambda old: old.replace(b'"vocab_size"', b'"words"'), "config.json has no 'vocab_size'"),
        (
            "config.json",
            lambda old: re.sub(rb'("vocab_size": )\d+', rb"\g<1>-5", old),
            "vocab_size: expected a whole number",
        ),
        (
            "config.json",
            lambda old: re.sub(rb'("vocab_size": )\d+', rb"\g<1>9999999", old),
            "model.onnx cannot be used",
        ),
        ("config.json", lambda old: b"[" * 5000, "config.json is nested too deep"),
    ],
)
def test_a_damaged_folder_with_checksums_that_fit(folder, tmp_path, name, change, message):
    place = folder("sst2")
    (place / name).write_bytes(change((place / name).read_bytes()))
    write_checksums(place)
    words = ["lengths=8", "batch=1", "rounds=1", "engine=onnxruntime", f"out={tmp_path / 'out'}"]
    said = refused(f"model={place}", *words)
    assert message in said
    assert said.startswith(str(place))
    assert not (tmp_path / "out").exists()


def test_results_do_not_replace_files_of_the_user(deployed, tmp_path):
    (tmp_path / "benchmark.json").write_text("mine")
    message = refused(f"run={deployed('sst2')}", *FEW, f"out={tmp_path}")
    assert "benchmark.json holds what sparse_xp did not write" in message
    assert (tmp_path / "benchmark.json").read_text() == "mine"


def test_the_function_writes_no_files_unless_it_is_told(deployed, tmp_path):
    options = {"lengths": [8, 16], "batch": 2, "rounds": 2, "engine": "onnxruntime"}
    measured = sparse_xp.benchmark(deployed("sst2") / "deployment", **options)
    assert [(each.batch, each.length, each.threads) for each in measured] == [(2, 8, 1), (2, 16, 1)]
    assert list(tmp_path.iterdir()) == []
    title, *table = str(measured).splitlines()
    assert "against the same graph, zeros filled" in title
    assert [line.split(" | ")[3].strip() for line in table if line.startswith("| onnxruntime")] == ["8", "16"]
    assert str(measured).endswith("\n".join(measured.conclusions))
    again = sparse_xp.benchmark(deployed("sst2"), against=deployed("sst2"), out=tmp_path / "out", **options)
    assert again.reference == f"{deployed('sst2')}/deployment"
    assert json.loads((tmp_path / "out/benchmark.json").read_text())["says"] == again.conclusions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": []}, r"lengths=\[\]: expected a whole number of at least 1, or several"),
        ({"batch": "8"}, "batch='8': expected a whole number"),
        ({"threads": True}, "threads=True: expected a whole number"),
        ({"rounds": [3]}, r"rounds=\[3\]: expected a whole number of at least 1\."),
        ({"engine": ["onxruntime"]}, "engine=onxruntime: expected onnxruntime or openvino. Did you mean 'onnxruntime'"),
        ({"lengths": 1000}, r"lengths=1000: the model takes 2 to 512 tokens\."),
        ({"against": "nowhere"}, r"nowhere holds no model\.onnx"),
        ({"engine": 3}, "engine=3: expected a name, or several: onnxruntime, openvino"),
        ({"engine": [3]}, r"engine=\[3\]: expected a name"),
        ({"threads": 10_000}, "threads=10000: this machine has"),
        ({"lengths": np.array([8, 0])}, "lengths=.*: expected a whole number"),
        ({"against": 5}, "against=5: expected a path"),
        ({"out": __file__}, "out=.*: not a directory"),
        ({"out": 5}, "out=5: expected a path"),
    ],
)
def test_what_the_function_refuses(deployed, options, message):
    with pytest.raises(sparse_xp.UserError, match=message):
        sparse_xp.benchmark(deployed("sst2"), **options)


@pytest.mark.parametrize("directory", [5, None, "a\0b", "n" * 300])
def test_folders_that_cannot_be(directory):
    with pytest.raises(sparse_xp.UserError, match=r"expected a path|no file can have this name|file name too long"):
        sparse_xp.benchmark(directory)


@pytest.mark.parametrize("inside", ["", "benchmark"])
def test_no_report_is_written_into_a_deployment_folder(folder, inside):
    place = folder("sst2")
    with pytest.raises(sparse_xp.UserError, match=r"is inside of .*, which tells of its own files alone"):
        sparse_xp.benchmark(place, out=place / inside)
    assert not (place / "benchmark.json").exists()


def test_numbers_of_numpy_and_equal_ones(deployed):
    options = {
        "lengths": np.array([8, 8, 16]),
        "batch": np.int64(1),
        "rounds": np.int32(1),
        "engine": ["onnxruntime"] * 2,
    }
    measured = sparse_xp.benchmark(deployed("sst2"), **options)
    assert [(each.batch, each.length) for each in measured] == [(1, 8), (1, 16)]
    assert ", 1 round\n" in str(measured)
    assert "too few rounds" in str(measured)
    assert "1 round: too few to tell" in measured.conclusions[0]


def test_an_engine_that_is_not_installed(deployed, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    message = refused(f"run={deployed('sst2')}", "engine=openvino")
    assert message == "engine=openvino is not installed: pip install 'sparse-xp[openvino]'"


def test_the_command_without_words_says_how():
    done = subprocess.run([sys.executable, "-m", "sparse_xp.benchmark"], capture_output=True, text=True, check=True)
    assert "run=RUN [against=RUN]" in done.stdout
