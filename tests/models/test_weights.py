"""The weights of a checkpoint are those of the encoder, all and no others; a prefix of their names is mended."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from sparse_xp.errors import UserError
from sparse_xp.models.loading import load_model
from sparse_xp.models.weight_names import find_prefixes, prefix_mapping
from sparse_xp.tasks import TextClassification
from tests.tiny import make_bert

TASK = TextClassification(name="sst2", dataset=None, folder="sst2", classes=["no", "yes"], max_length=8)
SHAPE = {"vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
         "max_position_embeddings": 24}  # fmt: skip
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16,
            "position_biased_input": False}  # fmt: skip
KINDS = {
    "Bert": {},
    "Roberta": {},
    "XLMRoberta": {},
    "DistilBert": {},
    "Electra": {"embedding_size": 4},
    "MPNet": {},
    "Albert": {"embedding_size": 4},
    "DebertaV2": {**RELATIVE, "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "ModernBert": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
}
WRAPPERS = ["module.", "model.", "_orig_mod.", "0.auto_model.", "model.module."]


def build(kind: str, head: str):
    config = getattr(transformers, f"{kind}Config")(**SHAPE, **KINDS[kind])
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}{head}")(config)


def rewrite(place: Path, change) -> None:
    """Change the weights in a model directory, a dictionary, by a function."""
    file = place / "model.safetensors"
    save_file({name: value.clone() for name, value in change(load_file(file)).items()}, file, {"format": "pt"})


def encoder_of(model) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.base_model.state_dict().items() if "pooler" not in name}


def assert_same_encoder(place: Path, model) -> None:
    loaded, new = load_model(TASK, str(place))
    found = encoder_of(loaded)
    expected = encoder_of(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    prefix = f"{loaded.base_model_prefix}."
    assert not [name for name in new if name.startswith(prefix) and "pooler" not in name]


@pytest.fixture
def bert(tmp_path):
    make_bert().save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForPreTraining", "ForQuestionAnswering"])
@pytest.mark.parametrize("kind", KINDS)
def test_heads_and_buffers_of_public_checkpoints_may_be_left_over(kind, head, tmp_path):
    if not hasattr(transformers, f"{kind}{head}"):
        pytest.skip("there is no such class")
    model = build(kind, head)
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"  # does not tell which head it is: a trained one would be refused
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": []}))
    inside = "" if head == "Model" else f"{model.base_model_prefix}."
    extra = {
        f"{inside}embeddings.position_ids": torch.arange(24)[None],
        f"{inside}pooler.dense.weight": torch.ones(8, 8),
        "lm_predictions.lm_head.dense.weight": torch.ones(8, 8),
    }
    rewrite(tmp_path, lambda weights: extra | weights)
    assert_same_encoder(tmp_path, model)
    rewrite(tmp_path, lambda weights: {name.removeprefix(inside): value for name, value in weights.items()})
    assert_same_encoder(tmp_path, model)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapper_around_the_names_is_mended_and_told(kind, wrapper, tmp_path, capsys):
    model = build(kind, "ForSequenceClassification")
    model.save_pretrained(tmp_path)
    rewrite(tmp_path, lambda weights: {wrapper + name: value for name, value in weights.items()})
    loaded, new = load_model(TASK, str(tmp_path))
    assert new == []
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    if model.base_model_prefix not in wrapper:
        assert f"begin with '{wrapper}{model.base_model_prefix}.'" in capsys.readouterr().out


def test_what_was_mended_is_saved_under_the_names_of_the_model(bert, tmp_path):
    old = {"weight": "gamma", "bias": "beta"}

    def rename(weights):
        for name, value in weights.items():
            stem, _, last = name.rpartition(".")
            yield f"module.{stem}.{old[last] if 'LayerNorm' in stem else last}", value

    rewrite(bert, lambda weights: dict(rename(weights)))
    model, new = load_model(TASK, str(bert))
    model.save_pretrained(tmp_path / "again")
    assert new == []
    assert load_file(tmp_path / "again/model.safetensors").keys() == make_bert().state_dict().keys()


def test_the_encoder_of_a_wrapper_is_found_under_another_name(bert, capsys):
    rewrite(bert, lambda weights: {name.replace("bert.", "backbone."): value for name, value in weights.items()})
    model, new = load_model(TASK, str(bert))
    assert new == []
    assert torch.equal(model.classifier.weight, make_bert().classifier.weight)
    assert "begin with 'backbone.', read as 'bert.'" in capsys.readouterr().out


def refused(place: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(TASK, str(place))
    assert "Copy or download" in str(caught.value) or "expected" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {n.replace("bert.", "roberta."): v for n, v in w.items()}, "'roberta.', the type 'roberta'"),
        (lambda w: {n.replace("bert.", "module.roberta."): v for n, v in w.items()}, "model_type is 'bert'"),
        (lambda w: {s + n: v for n, v in w.items() for s in ("query.", "context.")}, "holds 2 encoders"),
        (
            lambda w: w | {"bert.encoder.layer.1.output.dense.bias": torch.ones(8)},
            "more layers .*: 1 would be left out",
        ),
        (lambda w: w | {"bert.embeddings.extra.weight": torch.ones(8)}, "has not: bert.embeddings.extra.weight"),
        (
            lambda w: {n.replace("output", "out"): v for n, v in w.items()},
            "The file has bert.encoder.layer.0.attention",
        ),
        (lambda w: {n: v * float("nan") for n, v in w.items()}, "holds NaN or infinite numbers"),
        (lambda w: {n: v.to(torch.float8_e4m3fn) for n, v in w.items()}, "is of type F8_E4M3"),
    ],
    ids=["other family", "other family, wrapped", "two", "more layers", "left over", "renamed", "NaN", "8-bit floats"],
)
def test_what_does_not_fit_is_refused(bert, change, message):
    rewrite(bert, change)
    said = refused(bert)
    assert re.search(message, said), said


def test_bare_weights_with_more_layers_are_refused(tmp_path):
    build("Bert", "Model").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 1}))
    assert "has more layers than its config.json says: 1 would be left out" in refused(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_weights_of_any_precision_load(bert, dtype):
    rewrite(bert, lambda weights: {name: value.to(dtype) for name, value in weights.items()})
    model, _ = load_model(TASK, str(bert))
    assert model.dtype == torch.float32
    assert torch.equal(model.classifier.weight, make_bert().classifier.weight.to(dtype).float())


@pytest.mark.parametrize("zipped", [True, False])
def test_integers_of_a_pickled_file_are_refused(bert, zipped):
    (bert / "model.safetensors").unlink()
    weights = {name: value.to(torch.int8) for name, value in make_bert().state_dict().items()}
    torch.save(weights, bert / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert "is of type torch.int8" in refused(bert)


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "run git lfs pull"),
        (b"<!DOCTYPE html><html><body>not found</body></html>", "it is a web page"),
        (b"GGUF\x03\x00\x00\x00" + bytes(64), "it is a GGUF file"),
        (b'{"error": "Repository not found", "more": "' + b"x" * 4000 + b'"}', "it is JSON"),
        (pickled(), "such as torch.save writes"),
    ],
    ids=["LFS", "HTML", "GGUF", "JSON", "zip"],
)
def test_what_lies_in_place_of_a_file_is_named(bert, name, data, message):
    if (name, message) in (("config.json", "it is JSON"), ("pytorch_model.bin", "such as torch.save writes")):
        pytest.skip("it is what the file should be")
    if name == "pytorch_model.bin":
        (bert / "model.safetensors").unlink()
    (bert / name).write_bytes(data)
    said = refused(bert)
    assert message in said
    assert name in said


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("adapter_model.safetensors", None),
        ("adapter_config.json", "Merge it into its base model"),
        ("model.gguf", "llama.cpp"),
        ("model.onnx", "An ONNX file cannot be trained"),
        ("tf_model.h5", "of TensorFlow"),
        ("flax_model.msgpack", "of Flax"),
        ("bert.safetensors", "call the file model.safetensors"),
        ("model-00001-of-00002.safetensors", "add its index"),
    ],
)
def test_a_directory_with_other_weights_says_what_to_do(bert, file, message):
    (bert / "model.safetensors").rename(bert / file)
    with pytest.raises(UserError, match=message or "has no weights"):
        load_model(TASK, str(bert))


def test_a_prefix_is_one_that_all_missing_weights_have():
    missing = ["bert.a.weight", "bert.b.c.weight"]
    assert find_prefixes(missing, {"x.bert.a.weight", "x.bert.b.c.weight", "y"}, "bert.") == ["x.bert."]
    assert find_prefixes(missing, {"x.bert.b.c.weight"}, "bert.") == []
    assert find_prefixes(missing, {"xa.weight", "xb.c.weight"}, "bert.") == []
    assert find_prefixes([], {"x"}, "bert.") == []
    assert prefix_mapping("x.bert.", "bert.") == {r"^x\.": ""}
    assert prefix_mapping("x.", "bert.") == {r"^x\.": "bert."}
    assert prefix_mapping("x.", "") == {r"^x\.": ""}
