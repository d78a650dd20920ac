"""``sparse_xp.export``: a model in memory through the gate, into a folder that every command takes."""

from __future__ import annotations

import inspect
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from torch import nn
from transformers import BertForQuestionAnswering, BertForTokenClassification, DistilBertConfig
from transformers import DistilBertForSequenceClassification as DistilBert

import sparse_xp
from sparse_xp import verify
from sparse_xp.deployment.folder import check_bundle_files
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import freeze, prepare
from sparse_xp.functional.structured.removal import remove_groups
from sparse_xp.settings import Export
from sparse_xp.tasks import QuestionAnswering, TextClassification, TokenClassification
from tests.encoders import make_encoder
from tests.tiny import WORDS, make_bert, make_tokenizer

ROWS = [{"text": "the dog sat on the mat .", "label": "good"}, {"text": "who sat ?", "label": "bad"}] * 6


def make_model(labels=("bad", "good")):
    model = make_bert()
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {name: number for number, name in enumerate(labels)}
    return model


def export(model=None, directory="out", **options):
    given = {"task": "custom_classification", "rows": ROWS, "max_length": 16} | options
    return sparse_xp.export(
        make_model() if model is None else model, given.pop("tokenizer", make_tokenizer()), directory, **given
    )


def state(model):
    """Everything of a model that an export might change."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    return (
        {name: (id(each), each.data_ptr(), each.dtype, each.detach().clone()) for name, each in tensors.items()},
        [each.training for each in model.modules()],
        (model.config.to_dict(), model.config._attn_implementation, sorted(vars(model))),
    )


def assert_same(before, after):
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    for name, (*place, values) in before[0].items():
        assert after[0][name][:3] == tuple(place)
        assert torch.equal(after[0][name][3], values)


def logits_of(directory, text):
    """The logits of an exported classifier."""
    from sparse_xp.deployment.engines import infer, open_session

    session = open_session(Path(directory) / "model.onnx")
    encoded = make_tokenizer()([text], return_tensors="np")
    return infer(session, {name: encoded[name].astype(np.int64) for name in encoded})["logits"]


@torch.no_grad()
def test_a_folder_that_everything_takes(tmp_path, capsys):
    model = make_model()
    model.bert.encoder.layer[0].output.dense.weight.view(-1)[:64] = 0
    made = export(model, tmp_path / "out")
    check_bundle_files(tmp_path / "out")
    assert sparse_xp.Pipeline(tmp_path / "out", verify=True)(text="the dog")["label"] in ("bad", "good")
    verify.main([str(tmp_path / "out")])
    assert "answers as" in capsys.readouterr().out
    assert made.metrics == made.model_metrics == {"accuracy": 50.0}
    assert (made.rows, made.task.label_names, made.deployment.integers) == (12, ["bad", "good"], False)
    assert made.deployment.bytes == (tmp_path / "out/model.onnx").stat().st_size
    assert made.sparsity.prunable == sparse_xp.measure(model).prunable.fraction == 64 / 512
    assert made.compression == sparse_xp.measure(model).compression
    assert f"{tmp_path}/out, custom_classification on 12 rows\n  in PyTorch: accuracy 50.00" in str(made)
    assert "sparsity 12.5%" in str(made)
    card = (tmp_path / "out/model_card.md").read_text()
    assert "Exported with `sparse_xp.export` from a BertForSequenceClassification in memory" in card
    assert "on rows of the user's" in card
    expected = model.eval()(**make_tokenizer()(["who sat"], return_tensors="pt")).logits
    np.testing.assert_allclose(logits_of(tmp_path / "out", "who sat"), expected, atol=1e-6)


def test_defaults_are_those_of_the_command():
    parameters = inspect.signature(sparse_xp.export).parameters
    for field in fields(Export):
        assert (parameters[field.name].default, parameters[field.name].annotation) == (field.default, field.type)


@pytest.mark.parametrize(
    "changed",
    [
        lambda model: model.train(),
        lambda model: model.half(),
        pytest.param(lambda model: model.double(), marks=pytest.mark.slow),
        lambda model: Accelerator(cpu=True, mixed_precision="bf16").prepare(model),
        pytest.param(lambda model: model.requires_grad_(False), marks=pytest.mark.slow),
    ],
    ids=["training", "half", "double", "autocast", "frozen"],
)
def test_a_model_stays_as_it_was(tmp_path, changed):
    model = changed(make_model())
    model.bert.encoder.eval()  # while other parts are in training mode
    tokenizer = make_tokenizer()
    before, words = state(model), (tokenizer.backend_tokenizer.to_str(), list(tokenizer.model_input_names))
    export(model, tmp_path / "out", tokenizer=tokenizer)
    assert_same(before, state(model))
    assert words == (tokenizer.backend_tokenizer.to_str(), list(tokenizer.model_input_names))
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float32"
    np.testing.assert_allclose(
        logits_of(tmp_path / "out", "who sat"),
        make_model().eval()(**make_tokenizer()(["who sat"], return_tensors="pt")).logits.detach(),
        atol=1e-3,
    )


def test_a_model_stays_as_it_was_after_an_error(tmp_path):
    model = make_model().half().train()
    before = state(model)
    with pytest.raises(sparse_xp.UserError, match=r"a logit differs by .*max_abs_diff=.* of sparse_xp\.export"):
        export(model, tmp_path / "refused", max_abs_diff=0.0)
    assert_same(before, state(model))
    assert not (tmp_path / "refused").exists()


def test_wrappers_are_left_out(tmp_path):
    compiled = torch.compile(make_model())
    assert export(compiled, tmp_path / "compiled").metrics == {"accuracy": 50.0}
    in_place = make_model()
    in_place.compile()
    call = in_place._compiled_call_impl
    export(in_place, tmp_path / "in_place")
    assert in_place._compiled_call_impl is call
    assert export(nn.DataParallel(make_model()), tmp_path / "parallel").rows == 12


def test_a_model_in_8_bits(tmp_path):
    model = make_model()
    modules = prepare(model, QuantConfig(), QuantMode(active=True))
    model.train()(**make_tokenizer()(["the dog sat on the mat", "who"], padding=True, return_tensors="pt"))
    freeze(modules)
    before = state(model)
    made = export(model, tmp_path / "int8", max_metric_diff_int8=50.0)
    assert_same(before, state(model))
    assert made.deployment.integers
    assert "  int8  " in str(made)
    assert made.compression.encoder.bits == 8
    export(directory=tmp_path / "fp32")
    with pytest.raises(sparse_xp.UserError, match=r"computes with integers.*against="):
        sparse_xp.benchmark(tmp_path / "int8", lengths=8)
    few = {"lengths": 8, "batch": 1, "rounds": 1, "engine": "onnxruntime"}
    [measured] = sparse_xp.benchmark(tmp_path / "int8", against=tmp_path / "fp32", **few)
    assert (measured.length, measured.batch) == (8, 1)


def test_a_model_without_some_of_its_heads(tmp_path):
    model = make_encoder("Bert", layers=2)
    model.config.id2label, model.config.label2id = {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
    mask = (torch.tensor([True, False]), torch.arange(16) < 5)
    remove_groups(model, {f"bert.encoder.layer.{number}": mask for number in range(2)})
    made = export(model, tmp_path / "out", tokenizer=make_tokenizer([*WORDS, *(f"w{i}" for i in range(10))]))
    assert made.sparsity.removed is not None
    assert made.sparsity.removed.neurons == [5, 5]
    assert made.sparsity.removed.description in str(made)
    assert sparse_xp.Pipeline(tmp_path / "out")(text="dog")["label"] in ("bad", "good")


def test_token_types_that_a_model_does_not_take(tmp_path):
    sizes = {"vocab_size": len(WORDS), "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
    model = DistilBert(DistilBertConfig(max_position_embeddings=16, id2label={0: "bad", 1: "good"}, **sizes))
    assert export(model, tmp_path / "out").rows == 12


def test_questions_and_tags(tmp_path):
    config = make_bert().config
    asked = {"id": "1", "question": "who sat ?", "context": "the dog sat on the mat .",
             "answers": {"text": ["the dog"], "answer_start": [0]}}  # fmt: skip
    task = QuestionAnswering(name="mine", max_length=16, doc_stride=4)
    made = sparse_xp.export(BertForQuestionAnswering(config), make_tokenizer(), "qa", task=task, rows=[asked])
    assert made.metrics.keys() == {"exact_match", "f1"}
    assert isinstance(sparse_xp.Pipeline("qa")(question="who", context="the dog")["answer"], str)
    with pytest.raises(sparse_xp.UserError, match=r"doc_stride=128: expected 0 to max_length=16"):
        sparse_xp.export(BertForQuestionAnswering(config), make_tokenizer(), "no", task="squad", rows=[], max_length=16)
    config.id2label = {0: "O", 1: "B-DOG", 2: "I-DOG"}
    config.label2id = {name: number for number, name in config.id2label.items()}
    model, tagged = BertForTokenClassification(config), [{"tokens": ["the", "dog"], "tags": ["O", "B-DOG"]}] * 4
    made = sparse_xp.export(model, make_tokenizer(), "ner", task="custom_ner", rows=tagged, max_length=16)
    assert made.task.label_names == ["O", "B-DOG", "I-DOG"]  # the rows have no I-DOG
    model.config.id2label[2] = "nothing"
    with pytest.raises(sparse_xp.UserError, match="the labels of the model: 'nothing' is no class of the BIO scheme"):
        sparse_xp.export(model, make_tokenizer(), "no", task="custom_ner", rows=tagged, max_length=16)
    whole = TokenClassification(name="mine", tags="tags", max_length=16, classes=["O", "B-CAT", "I-CAT"])
    model.config.id2label[2] = "I-DOG"
    told = r"trained for labels \['O', 'B-DOG', 'I-DOG'\], task mine has"
    with pytest.raises(sparse_xp.UserError, match=told):
        sparse_xp.export(model, make_tokenizer(), "no", task=whole, rows=[{"tokens": ["the"], "tags": ["O"]}])


@pytest.fixture
def named():
    """Rows of a Dataset whose labels are numbers with names; more rows are behind it than it shows."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    return Dataset.from_dict({"text": ["a dog", "", "a cat"], "label": [0, 1, 1]}, features=features).select([2, 0])


def test_rows_of_a_mirror(tmp_path):
    (tmp_path / "mirror/sst2").mkdir(parents=True)
    rows = {"sentence": ["the dog", "the cat"] * 3, "label": [1, 0] * 3}
    Dataset.from_dict(rows).to_parquet(tmp_path / "mirror/sst2/validation.parquet")
    model = make_model(("negative", "positive"))
    made = export(model, tmp_path / "out", task="sst2", rows=tmp_path / "mirror")
    assert made.rows == 6
    assert "on the validation rows of nyu-mll/glue" in (tmp_path / "out/model_card.md").read_text()


def test_without_rows_the_task_has_to_have_some(tmp_path):
    with pytest.raises(sparse_xp.UserError, match="rows= is missing: task custom_classification has no data set"):
        export(directory=tmp_path / "out", rows=None)
    assert not (tmp_path / "out").exists()


def test_rows_of_a_file_and_of_a_dataset(tmp_path, named):
    (tmp_path / "rows.csv").write_text("text,label\nthe dog,good\nthe cat,bad\n")
    made = export(directory=tmp_path / "file", rows=tmp_path / "rows.csv")
    assert made.rows == 2
    assert "on the user's file rows.csv" in (tmp_path / "file/model_card.md").read_text()
    made = export(directory=tmp_path / "dataset", rows=named.with_format("torch"))
    assert (made.rows, made.task.label_names) == (2, ["bad", "good"])
    lines = [{"premise": "a dog", "hypothesis": "a cat", "label": label} for label in (0, 1)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pairs = TextClassification(name="pairs", text="premise", text_pair="hypothesis", classes=["bad", "good"],
                               eval_split="matched+mismatched")  # fmt: skip
    assert export(directory=tmp_path / "pairs", rows=str(tmp_path / "pairs.jsonl"), task=pairs).rows == 2


def test_labels_that_are_only_numbers(tmp_path, named, capsys):
    plain = make_bert()
    assert export(plain, tmp_path / "named", rows=named).task.label_names == ["bad", "good"]
    assert "numbers cannot be compared with names" in capsys.readouterr().out.replace("\n", " ")
    numbers = [{"text": "a dog", "label": number % 2} for number in range(4)]
    assert export(plain, tmp_path / "numbers", rows=numbers).task.label_names == ["LABEL_0", "LABEL_1"]
    told = TextClassification(name="told", text="text", classes=["good", "bad"], max_length=16)
    assert export(plain, tmp_path / "told", task=told, max_length=None).task.label_names == ["good", "bad"]


def test_a_directory_is_replaced_if_an_export_made_it(tmp_path):
    export(directory=tmp_path / "out")
    export(directory=tmp_path / "out", opset=18)
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(sparse_xp.UserError, match=r"out holds what sparse_xp did not write \(mine\.txt\)"):
        export(directory=tmp_path / "out")
    with pytest.raises(sparse_xp.UserError, match="is inside of a deployment"):
        export(directory=tmp_path / "out/another")
    assert (tmp_path / "out/mine.txt").read_text() == "mine"


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = make_bert()


class Sentences(nn.Module):
    """As a model of embeddings: an encoder without a head."""

    def __init__(self):
        super().__init__()
        self.encoder = make_bert().bert


def spoiled(value):
    """A model with weights of this value in its head."""
    model = make_model()
    model.classifier.bias.data.fill_(value)
    model.classifier.weight.data.fill_(value)
    model.bert.pooler.dense.bias.data.fill_(100.0)  # the inputs of the classifier are 1
    return model


def labelled(names):
    """A model that had these labels written into its configuration."""
    model = make_bert()
    model.config.id2label = names
    return model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": nn.Linear(2, 2)}, "model: Linear is no model of transformers"),
        ({"model": Wrapped()}, "Wrapped is no model .* It holds one: give encoder, a BertForSequenceClassification"),
        ({"model": "a/path"}, "model: expected a model of transformers, not str"),
        (
            {"model": make_model().bert},
            "BertModel computes no logits. Task custom_classification, 2 labels, needs an AutoModelForSeq",
        ),
        ({"model": make_model(("bad", "good", "best"))}, r"computes logits of \[2\] for each row. Task .* 3 labels"),
        ({"tokenizer": None}, "tokenizer: expected a fast tokenizer of transformers, not NoneType"),
        ({"tokenizer": make_tokenizer([*WORDS, "more"])}, "the token 'more' is number 20, .* embeddings for 20 tokens"),
        ({"task": "squat"}, "task='squat': there is no such task. Did you mean 'squad'"),
        ({"task": 1}, "task: expected a name or a task of sparse_xp.tasks, not int"),
        ({"task": "sst2", "rows": [{"text": "a", "label": 1}]}, "rows has no column 'sentence'"),
        ({"task": "sst2", "rows": [{"sentence": "a", "label": 1}]}, r"trained for labels \['bad', .* has \['negative'"),
        ({"max_length": 17}, "max_length=17: the model .Bert.* reads texts of at most 16 tokens"),
        ({"max_length": "16"}, "max_length='16': expected a number of tokens"),
        ({"rows": []}, "rows is empty"),
        ({"rows": Dataset.from_list(ROWS).select([])}, "rows is empty"),
        ({"rows": {"text": ["a"]}}, "rows: expected a list of dictionaries, .* not dict"),
        ({"rows": [("a", "good")]}, "rows, row 0: expected a dictionary"),
        ({"rows": DatasetDict(test=Dataset.from_list(ROWS))}, "a dictionary of splits, test. Give one"),
        ({"rows": [{"txt": "a", "label": "good"}]}, "rows has no column 'text'. Did you mean 'txt'"),
        ({"rows": [{"text": "a"}]}, "rows has no column 'label'"),
        ({"rows": [{"text": " ", "label": "bad"}]}, "rows, row 0: the text in column text is empty"),
        (
            {"rows": [*ROWS, {"text": "a", "label": "fine"}]},
            "row 12: the label 'fine' .* Here the classes are those of",
        ),
        ({"rows": [*ROWS, {"text": 1, "label": "bad"}]}, "column 'text' is not of one type in all rows: row 12"),
        ({"rows": "nowhere.csv"}, "No file nowhere.csv"),
        ({"opset": 12}, "^opset=12: expected 18 to 23"),
        ({"opset": "20"}, "opset='20': expected int"),
        ({"sequence": 8}, "^sequence=8: texts of task custom_classification have up to 16 tokens; write max_length=8"),
        ({"batch": 0}, "^batch=0: expected at least 1, or None for any number"),
        ({"max_abs_diff": float("nan")}, "^max_abs_diff=nan: expected a number of at least 0"),
        ({"max_metric_diff_int8": -1.0}, "^max_metric_diff_int8=-1.0: expected a number of at least 0"),
        ({"model": make_bert().to("meta")}, "has no values: it is on the device meta"),
        ({"model": spoiled(float("nan"))}, "classifier.weight holds NaN or infinity"),
        ({"model": spoiled(3e38)}, "computes NaN or infinity in logits for the first row"),
        ({"model": Sentences()}, r"It holds one, encoder, a BertModel without a head\. If it embeds texts, save it"),
        ({"model": make_bert()}, r"the label 'good' .* LABEL_0, LABEL_1.* classes=\[...\].*id2label.*numbers 0 to 1"),
        ({"model": make_bert(), "rows": [{"text": "a", "label": 2}]}, "the label '2' .* numbers 0 to 1"),
        ({"model": labelled({0: "bad", 1: ""})}, "id2label=.* expected a name for each class"),
        ({"model": labelled({0: None, 1: "good"})}, "id2label=.* expected a name for each class"),
        ({"model": labelled({1: "bad", 2: "good"})}, "id2label=.* expected a name for each class"),
        ({"eval_batch_size": 0}, "eval_batch_size=0: expected a whole number of at least 1"),
    ],
)
def test_what_is_refused(tmp_path, options, message):
    with pytest.raises(sparse_xp.UserError, match=message):
        export(directory=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("directory", "message"),
    [
        ("file/out", "file/out: not a directory"),
        ("file/deep/out", "file/deep/out: not a directory"),
        ("n" * 300, "file name too long"),
        ("n" * 250, "file name too long"),
        ("a\0b", "no file can have this name"),
        ("/", "/ holds what sparse_xp did not write"),
        (5, "directory=5: expected a path"),
        (b"x", "directory=b'x': expected a path"),
        ("file", "file holds what sparse_xp did not write"),
    ],
)
def test_directories_that_cannot_be(tmp_path, monkeypatch, directory, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(sparse_xp.UserError, match=message):
        export(directory=directory)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_threads_export_in_turn(tmp_path):
    one, other = make_model().half().train(), make_model()
    before = state(one), state(other)
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(export, (one, one, other), (tmp_path / name for name in "abc")))
    assert [each.rows for each in made] == [12] * 3
    assert_same(before[0], state(one))
    assert_same(before[1], state(other))
