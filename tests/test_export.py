"""``python -m sparse_xp.export``: a finished run or a model, exported and checked again."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from datasets import Dataset
from transformers import AutoModelForQuestionAnswering

from sparse_xp import Pipeline, benchmark_command
from sparse_xp.cli import run_command
from sparse_xp.deployment.folder import check_bundle_files
from sparse_xp.errors import UserError
from sparse_xp.export_command import main, parts_of_run
from sparse_xp.modifiers import Quantization
from sparse_xp.post_training import PostTraining
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


def test_the_tokenizer_is_the_same_whether_features_were_cached(copy, tmp_path):
    """Tokenizing changes the settings of a tokenizer, and cached features need no tokenizing."""
    names = ("tokenizer.json", "tokenizer_config.json")
    as_made = {name: (copy / "model" / name).read_bytes() for name in names}
    cached, afresh = tmp_path / "cached", tmp_path / "afresh"
    main([f"run={copy}", f"out={cached}"])
    main([f"run={copy}", f"out={afresh}", f"data.cache={tmp_path}/another"])
    for folder in (copy / "deployment", cached, afresh):
        assert {name: (folder / name).read_bytes() for name in names} == as_made


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
        benchmark_command.main([f"model={tmp_path / 'out'}", "batch=1"])
    benchmark_command.main([f"model={tmp_path / 'out'}", "rounds=1", "engine=onnxruntime", f"out={tmp_path}"])
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
        ".sparse_xp",
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
        (["run={}", "export.opset=new"], "export.opset: expected a whole number, not new."),
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


# ---- quantized without training ----


def quantize(checkpoint, place, *words):
    rows = ("data.embedded_train_rows=64", "data.embedded_eval_rows=32", f"data.cache={place}/cache")
    main(["task=squad", "profile=embedded", *rows, f"model.checkpoint={checkpoint}", f"out={place}/out", *words])
    return place / "out"


@pytest.mark.parametrize("option", ["ptq_int8", pytest.param("int8_dynamic", marks=pytest.mark.slow)])
def test_a_trained_model_is_quantized_without_training(finished, tmp_path, option, capsys):
    out = quantize(finished, tmp_path, f"quantization={option}", "max_loss=100")
    check_bundle_files(out)
    operators = {node.op_type for node in onnx.load(out / "model.onnx").graph.node}
    assert ("DynamicQuantizeLinear" in operators, "DequantizeLinear" in operators)[option == "ptq_int8"]
    assert (out / "model.onnx").stat().st_size < (finished / "deployment/model.onnx").stat().st_size / 2
    shown = " ".join(capsys.readouterr().out.split())
    assert option in shown
    assert "in floating point: exact_match" in shown
    assert "benchmark=true" in shown
    rows = ", on up to 512 training rows" * (option == "ptq_int8")
    assert f"Quantization: {option}, after training{rows}." in (out / "model_card.md").read_text()
    assert Pipeline(out, verify=True)(question="Who?", context="Ada saw a bear.")["answer"]


@pytest.mark.slow
def test_its_speed_is_measured_beside_floating_point(finished, tmp_path, capsys):
    words = ("quantization=ptq_int8", "max_loss=100", "benchmark=true", "task.max_length=64", "task.doc_stride=32")
    out = quantize(finished, tmp_path, *words)
    measured = json.loads((tmp_path / "out-benchmark/benchmark.json").read_text())
    assert measured["against"] == str(tmp_path / "out-benchmark/floating_point")
    check_bundle_files(tmp_path / "out-benchmark/floating_point")
    check_bundle_files(out)
    assert "ratio" in capsys.readouterr().out


def test_what_a_quantized_file_may_lose():
    task = configure("task=squad", "model=tiny", "recipe=dense").task
    allowed = PostTraining(Quantization(calibration_rows=8), max_loss=2.0)
    before = {"f1": 80.0, "exact_match": 70.0}
    allowed.check_loss(task, before, {"f1": 78.0, "exact_match": 60.0})
    told = (
        r"f1 77\.50, in floating point 80\.00: it loses 2\.50 points, and max_loss=2 is allowed\. Nothing was written"
    )
    with pytest.raises(UserError, match=told):
        allowed.check_loss(task, before, {"f1": 77.5, "exact_match": 70.0})
    with pytest.raises(UserError, match="nan"):
        allowed.check_loss(task, before, {"f1": float("nan"), "exact_match": 70.0})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quantization=int8"], "quantization=int8 trains the model in 8 bits, and this command trains nothing. Write"),
        (["quantization=ptq_int8", "max_loss=few"], "max_loss=few: expected points of the task's metric"),
        (["quantization=ptq_int8", "max_loss=-1"], "max_loss=-1: expected points"),
        (["quantization=ptq_int8", "benchmark=yes"], "benchmark=yes: expected true or false"),
        (["benchmark=true"], "benchmark=true is for a model that is quantized here. Otherwise: python -m"),
    ],
)
def test_what_cannot_be_quantized_here(finished, tmp_path, words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        quantize(finished, tmp_path, *words)


def test_a_run_is_not_quantized_in_place(finished):
    with pytest.raises(UserError, match=r"quantized into a folder of its own: task=NAME model\.checkpoint=.* out=DIR"):
        main([f"run={finished}", "quantization=ptq_int8"])


def test_a_model_that_is_quantized_already(finished, tmp_path):
    shutil.copytree(finished / "model", tmp_path / "model")
    (tmp_path / "model/quantization.json").write_text("{}")
    with pytest.raises(UserError, match=r"is quantized already .*Leave quantization=ptq_int8 out"):
        quantize(tmp_path / "model", tmp_path, "quantization=ptq_int8")
    out = quantize(tmp_path / "model", tmp_path, "quantization=none")
    assert "DequantizeLinear" not in {node.op_type for node in onnx.load(out / "model.onnx").graph.node}


def test_no_rows_to_calibrate_on(finished, tmp_path):
    folder = tmp_path / "mirror/squad"
    folder.mkdir(parents=True)
    row = {"id": "1", "question": "Who?", "context": "Ada.", "answers": {"text": ["Ada"], "answer_start": [0]}}
    Dataset.from_list([row]).to_parquet(folder / "validation.parquet")
    words = ["task=squad", "model=tiny", f"data.root={tmp_path}/mirror", f"data.cache={tmp_path}/cache"]
    words += [f"model.checkpoint={finished}", f"out={tmp_path}/out", "task.max_length=64", "task.doc_stride=16"]
    with pytest.raises(
        UserError, match=r"(?s)takes the ranges of activations from training rows, .*int8_dynamic needs"
    ):
        main([*words, "quantization=ptq_int8"])
    main([*words, "quantization=int8_dynamic", "max_loss=100"])
    check_bundle_files(tmp_path / "out")


# ---- a checkpoint of 8 bits as SparseML saved it ----

RECIPE = """
version: 1.1.0
num_epochs: 13
qat_start_epoch: 8.0
training_modifiers:
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: eval(num_epochs)}
quantization_modifiers:
  - !QuantizationModifier
      start_epoch: eval(qat_start_epoch)
      disable_quantization_observer_epoch: 12.0
      freeze_bn_stats_epoch: 12.0
      quantize_linear_activations: 0
      exclude_module_types: ['LayerNorm']
      submodules: [bert.embeddings, bert.encoder, qa_outputs]
constant_modifiers:
  - !ConstantPruningModifier {start_epoch: 0.0, params: __ALL_PRUNABLE__}
"""


def observed(stem):
    """What a fake quantization of torch saves besides the weights."""
    flags = {name: torch.ones(1, dtype=torch.uint8) for name in ("fake_quant_enabled", "observer_enabled")}
    values = {"scale": torch.full((1,), 0.02), "zero_point": torch.full((1,), 128, dtype=torch.int32)}
    ends = {f"activation_post_process.{name}_val": torch.tensor(value) for name, value in (("min", -2.0), ("max", 2.0))}
    return {f"{stem}.{name}": value for name, value in (flags | values | ends).items()}


@pytest.fixture
def sparseml(finished, tmp_path):
    """The model of the run with the names that SparseML gave to wrapped and observed modules."""
    place = tmp_path / "sparseml"
    shutil.copytree(finished / "model", place)
    model = AutoModelForQuestionAnswering.from_pretrained(place)
    saved = {"bert.embeddings.position_ids": torch.arange(model.config.max_position_embeddings)[None]}
    for name, weight in model.state_dict().items():
        stem, _, kind = name.rpartition(".")
        module = model.get_submodule(stem)
        if isinstance(module, torch.nn.Linear):
            saved |= {f"{stem}.module.{kind}": weight, **observed(f"{stem}.quant.activation_post_process")}
            saved |= observed(f"{stem}.module.weight_fake_quant")
        else:
            saved[name] = weight
            saved |= observed(f"{stem}.weight_fake_quant") if isinstance(module, torch.nn.Embedding) else {}
    for layer in range(model.config.num_hidden_layers):
        stubs = f"bert.encoder.layer.{layer}.attention.self.attention_scores_matmul.input_quant_stubs"
        saved |= observed(f"{stubs}.0.activation_post_process") | observed(f"{stubs}.1.activation_post_process")
    for name in ("model.safetensors", "checksums.txt"):
        (place / name).unlink()
    torch.save(saved, place / "pytorch_model.bin")
    (place / "recipe.yaml").write_text(RECIPE)
    return place


def test_training_goes_on_from_an_int8_checkpoint_of_sparseml(sparseml, tmp_path):
    words = (*SHORT, "task=squad", "recipe=dense", "train.epochs=1", f"data.cache={tmp_path}/cache")
    result = run(configure(*words, f"model.checkpoint={sparseml}"), tmp_path / "run")
    assert (result.quantization, result.deployment.integers) == ("int8_sparseml", True)
    assert result.deployment.metrics == pytest.approx(result.metrics, abs=5)
    check_bundle_files(tmp_path / "run/deployment")


def test_an_int8_checkpoint_of_sparseml_is_exported(sparseml, finished, tmp_path, capsys):
    out = quantize(sparseml, tmp_path)
    assert "was made in 8 bits, and this file is in floating point. In 8 bits: quantization=ptq_int8" in " ".join(
        capsys.readouterr().out.split()
    )
    assert (out / "model.onnx").stat().st_size == (finished / "deployment/model.onnx").stat().st_size
    out = quantize(sparseml, tmp_path, "quantization=ptq_int8", "max_loss=100")
    assert "DequantizeLinear" in {node.op_type for node in onnx.load(out / "model.onnx").graph.node}


def test_the_command_without_words_says_how():
    shown = subprocess.run([sys.executable, "-m", "sparse_xp.export"], capture_output=True, text=True, check=True)
    assert "run=outputs/" in shown.stdout
