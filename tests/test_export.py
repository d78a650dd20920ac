"""``python -m sparse_xp.export``: a finished run or a model, exported and checked again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml

from sparse_xp import Pipeline, benchmark
from sparse_xp.cli import run_command
from sparse_xp.deployment.folder import check_bundle_files
from sparse_xp.errors import UserError
from sparse_xp.export import main, parts_of_run
from sparse_xp.result import Result
from sparse_xp.run import run
from tests.runs import SHORT, configure
from tests.tiny import make_bert, make_tokenizer


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("export")
    run(configure(*SHORT, "task=squad", "recipe=dense", "train.epochs=1", f"data.cache={place}/cache"), place / "run")
    return place / "run"


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def opset(folder):
    return onnx.load(folder / "model.onnx").opset_import[0].version


def test_a_run_is_exported_again_as_it_was(copy):
    before = json.loads((copy / "result.json").read_text())
    shutil.rmtree(copy / "deployment")
    main([f"run={copy}"])
    check_bundle_files(copy / "deployment")
    assert (copy / "deployment/recipe.yaml").is_file()
    assert json.loads((copy / "result.json").read_text()) == before
    assert opset(copy / "deployment") == 20


@pytest.mark.slow
def test_another_opset_replaces_the_file_and_its_figures(copy):
    before = json.loads((copy / "result.json").read_text())
    main([f"run={copy}", "export.opset=18"])
    after = json.loads((copy / "result.json").read_text())
    assert opset(copy / "deployment") == 18
    assert after["deployment"]["bytes"] == (copy / "deployment/model.onnx").stat().st_size
    assert after["deployment"]["bytes"] != before["deployment"]["bytes"]
    assert {**after, "deployment": None} == {**before, "deployment": None}


def test_a_file_of_one_shape_answers_as_one_of_any(copy, tmp_path, capsys):
    length = parts_of_run(copy, [])[0].max_length
    main([f"run={copy}", f"export.sequence={length}", "export.batch=3", f"out={tmp_path / 'out'}"])
    graph = onnx.load(tmp_path / "out/model.onnx").graph
    assert {tuple(d.dim_value for d in each.type.tensor_type.shape.dim) for each in graph.input} == {(3, length)}
    sample = dict(np.load(tmp_path / "out/samples/inp-0000.npz"))
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx")
    assert session.run(None, sample)[0].shape[0] == 3  # as the card says
    rows = [{"question": "Who?", "context": "Ada saw a bear. Vance fed a goat."}] * 4
    free, fixed = Pipeline(copy)(rows), Pipeline(tmp_path / "out")(rows)
    assert [each["answer"] for each in free] == [each["answer"] for each in fixed]
    assert [each["score"] for each in free] == pytest.approx([each["score"] for each in fixed], abs=1e-4)
    with pytest.raises(UserError, match=rf"max_length={length + 1}: the file was exported for {length} tokens"):
        Pipeline(tmp_path / "out", max_length=length + 1)
    with pytest.raises(UserError, match=r"batch=1: .*/out/model.onnx was exported for batch=3 alone"):
        benchmark.main([f"model={tmp_path / 'out'}", "batch=1"])
    benchmark.main([f"model={tmp_path / 'out'}", "rounds=1", "engine=onnxruntime", f"out={tmp_path}"])
    assert f"| 3     | {length} " in capsys.readouterr().out


@pytest.fixture
def stopped(tmp_path):
    """A run that is trained and whose file was refused."""
    words = (*SHORT, "task=sst2", "recipe=dense", "train.epochs=1", f"data.cache={tmp_path}/cache")
    config = configure(*words, "export.max_abs_diff=0")
    told = r"a logit differs by .*allows 0\. Computed node by node .* To take this file .*: export\.max_abs_diff="
    with pytest.raises(UserError, match=told):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run/deployment").exists()
    return tmp_path / "run"


def test_a_run_that_was_refused_is_exported_with_another_limit(stopped, capsys):
    with pytest.raises(UserError, match=r"is trained and has no deployment: python -m sparse_xp\.export run="):
        Pipeline(stopped)
    with pytest.raises(UserError, match="a logit differs by"):
        main([f"run={stopped}"])
    assert (stopped / "trained.json").is_file()
    main([f"run={stopped}", f"out={stopped.parent / 'out'}", "export.max_abs_diff=0.001"])
    check_bundle_files(stopped.parent / "out")
    assert not (stopped / "result.json").exists()
    main([f"run={stopped}", "export.max_abs_diff=0.001"])
    check_bundle_files(stopped / "deployment")
    assert not {"trained.json", "best", "checkpoints"} & {path.name for path in stopped.iterdir()}
    result = Result.read(stopped / "result.json")
    assert result.deployment.bytes == (stopped / "deployment/model.onnx").stat().st_size
    assert result.training.steps == 8
    assert result.metrics == pytest.approx(result.deployment.metrics)


@pytest.mark.slow
def test_the_same_command_with_another_limit_trains_no_more(stopped, capsys):
    words = (*SHORT, "task=sst2", "recipe=dense", "train.epochs=1", f"data.cache={stopped.parent}/cache")
    capsys.readouterr()
    run(configure(*words), stopped)
    assert "continuing at step 8" in capsys.readouterr().out.replace("\n", " ")
    assert not (stopped / "trained.json").exists()
    assert Pipeline(stopped, verify=True)(text="a film")["label"] in ("negative", "positive")


def test_the_format_of_openvino(copy, tmp_path):
    pytest.importorskip("openvino")
    main([f"run={copy}", "export.openvino=true"])
    check_bundle_files(copy / "deployment")
    assert (copy / "deployment/model.bin").stat().st_size > 1000
    assert "OpenVINO's own format" in (copy / "deployment/model_card.md").read_text()
    assert 0 < Result.read(copy / "result.json").deployment.openvino_max_abs_diff < 1e-3


def test_openvino_that_is_not_installed(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"OpenVINO is not installed: pip install 'sparse-xp\[openvino\]'"):
        main([f"run={copy}", "export.openvino=true"])


@pytest.mark.slow
def test_other_rows_go_elsewhere(copy, tmp_path, capsys):
    with pytest.raises(UserError, match=r"other rows than the run's\. Give out=DIR"):
        main([f"run={copy}", "task.max_eval_samples=10"])
    before = (copy / "result.json").read_text()
    main([f"run={copy}", "task.max_eval_samples=10", f"out={tmp_path / 'out'}"])
    assert (copy / "result.json").read_text() == before
    assert opset(tmp_path / "out") == 20
    assert "exported file: exact_match" in capsys.readouterr().out
    assert "on 10 of 32 rows" in (tmp_path / "out/model_card.md").read_text()


@pytest.mark.slow
def test_the_gate_holds_here_too(copy):
    before = (copy / "result.json").read_text()
    with pytest.raises(UserError, match=r"a logit differs by .*allows 0"):
        main([f"run={copy}", "export.max_abs_diff=0"])
    assert (copy / "result.json").read_text() == before
    assert opset(copy / "deployment") == 20


@pytest.mark.slow
def test_a_model_that_no_run_has_made(finished, tmp_path):
    words = ["task=squad", "model=tiny", f"model.checkpoint={finished / 'model'}", "data.embedded=true"]
    main([*words, "data.embedded_eval_rows=32", f"data.cache={tmp_path}/cache", f"out={tmp_path / 'out'}"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if "token" not in path.name) == [
        "checksums.txt",
        "config.json",
        "deployment.json",
        "model.onnx",
        "model_card.md",
        "samples",
        "task.json",
    ]
    check_bundle_files(tmp_path / "out")
    assert "Exported from" in (tmp_path / "out/model_card.md").read_text()
    stored = json.loads((finished / "result.json").read_text())["deployment"]
    assert (tmp_path / "out/model.onnx").stat().st_size == stored["bytes"]


def test_a_model_with_other_labels(tmp_path):
    model = make_bert()
    model.config.id2label = {0: "positive", 1: "negative"}
    model.save_pretrained(tmp_path / "other")
    make_tokenizer().save_pretrained(tmp_path / "other")
    words = ["task=sst2", "model=tiny", f"model.checkpoint={tmp_path / 'other'}", "data.embedded=true"]
    message = r"other was trained for labels \['positive', 'negative'\], task sst2 has .*the same in another order"
    with pytest.raises(UserError, match=message):
        main([*words, "task.max_length=16", f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_the_task_comes_back_as_it_was(finished):
    task, data, settings, batch = parts_of_run(finished, ["export.opset=19", "eval_batch_size=7"])
    config = configure(*SHORT, "task=squad", "recipe=dense", f"data.cache={finished.parent}/cache")
    assert (task, data) == (config.task, config.data)
    assert (settings.opset, batch) == (19, 7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run=nowhere"], "nowhere holds no run."),
        (["run={}", "recipe=dense"], "recipe=dense: recipe is settled once a run is finished; task, data, export"),
        (["run={}", "export.opzet=18"], "Unknown key 'export.opzet'. Did you mean 'opset'?"),
        (["run={}", "export.opset=new"], "export.opset: Value 'new'"),
        (["run={}", "export.opset=17"], "export.opset=17: expected 18 to 23."),
        (["run={}", "export.sequence=16"], "export.sequence=16: texts of task squad have up to"),
        (["run={}", "export.batch=0"], "export.batch=0: expected at least 1, or null"),
        (["squad"], "squad: expected KEY=VALUE."),
        (["task=squad", "model.checkpoint=x"], "out=DIR is needed"),
        (["task=squad", "model=tiny", "out=o"], "model.checkpoint=DIR is needed"),
        (["tusk=squad", "out=o"], "Unknown key 'tusk'. Did you mean 'task'?"),
        (
            ["task=sst2", "model=tiny", "model.checkpoint={}/model", "data.embedded=true", "out=o"],
            "has no trained head for task sst2",
        ),
    ],
)
def test_refused_in_one_short_message(finished, tmp_path, words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export", *(word.format(finished) for word in words)])
    with pytest.raises(SystemExit) as stopped:
        run_command(main, hint=True)
    assert message in str(stopped.value.code)
    assert not (tmp_path / "o").exists()


def test_an_unfinished_run(copy):
    (copy / "result.json").unlink()
    with pytest.raises(UserError, match="holds an unfinished run: issue its command again first"):
        main([f"run={copy}"])


def test_a_run_of_another_version(copy):
    path = copy / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**stored, "task": {"name": "squad"}}))
    with pytest.raises(UserError, match=r"config\.yaml has no 'kind'\. It may be of another version"):
        main([f"run={copy}"])
    path.write_text(yaml.safe_dump({"task": stored["task"]}))
    with pytest.raises(UserError, match=r"config\.yaml has no 'train'\. .* task=NAME model\.checkpoint="):
        main([f"run={copy}"])


def test_a_model_in_a_process_of_its_own(finished, tmp_path):
    """No other command has registered the configuration before."""
    words = ["task=squad", "profile=embedded", f"model.checkpoint={finished}/model", "data.embedded_eval_rows=8"]
    command = [sys.executable, "-m", "sparse_xp.export", *words, f"out={tmp_path}/out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_bundle_files(tmp_path / "out")


def test_the_command_without_words_says_how():
    shown = subprocess.run([sys.executable, "-m", "sparse_xp.export"], capture_output=True, text=True, check=True)
    assert "run=outputs/" in shown.stdout
