"""The files of sentence-transformers beside an encoder: all layouts that real models have, damaged and foreign ones."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sparse_xp.errors import UserError
from sparse_xp.files.reading import resolve_model_dir
from sparse_xp.models.sentence_modules import (
    DenseLayer,
    SentenceHead,
    read_dense_weights,
    read_sentence_head,
    write_sentence_modules,
)

OLD = "sentence_transformers.models."
POOLED = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}
DENSE = {"in_features": 8, "out_features": 3, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_model(directory: Path, *further: str, encoder: str = "", pooling: dict[str, Any] = POOLED) -> Path:
    """Write what stands beside an encoder of size 8, with ``further`` modules of the old names behind the pooling."""
    kinds = ["Transformer", "Pooling", *further]
    folders = [encoder, *(f"{number}_{kind}" for number, kind in enumerate(kinds[1:], start=1))]
    entries = [
        {"idx": number, "name": str(number), "path": folder, "type": OLD + kind}
        for number, (kind, folder) in enumerate(zip(kinds, folders, strict=True))
    ]
    write_json(directory / "modules.json", entries)
    write_json(directory / encoder / "config.json", {"model_type": "bert", "hidden_size": 8})
    write_json(directory / "1_Pooling/config.json", pooling)
    return directory


def head_of(directory: Path) -> SentenceHead:
    head = read_sentence_head(str(directory), None)
    assert head is not None
    return head


def test_a_plain_encoder_has_none(tmp_path: Path):
    write_json(tmp_path / "config.json", {"model_type": "bert", "hidden_size": 8})

    assert read_sentence_head(str(tmp_path), None) is None


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"word_embedding_dimension": 8, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"word_embedding_dimension": 8, "pooling_mode_max_tokens": True, "include_prompt": True}, "max"),
        ({"word_embedding_dimension": 8}, "mean"),  # what sentence-transformers takes where none is named
        ({"embedding_dimension": 8, "pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"embedding_dimension": 8, "pooling_mode": ["max"]}, "max"),
    ],
)
def test_the_pooling_of_earlier_and_later_versions(tmp_path: Path, pooling: dict[str, Any], expected: str):
    assert head_of(write_model(tmp_path, pooling=pooling)) == SentenceHead(pooling=expected, normalize=False)


def test_the_module_paths_of_version_6(tmp_path: Path):
    write_model(tmp_path)
    types = (
        "sentence_transformers.base.modules.transformer.Transformer",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "sentence_transformers.base.modules.normalize.Normalize",
    )
    paths = ("", "1_Pooling", "2_Normalize")
    write_json(tmp_path / "modules.json", [{"path": path, "type": of} for path, of in zip(paths, types, strict=True)])

    assert head_of(tmp_path) == SentenceHead()


def test_settings_of_the_encoder_and_of_the_whole(tmp_path: Path):
    write_model(tmp_path, "Normalize")
    write_json(tmp_path / "sentence_roberta_config.json", {"max_seq_length": 384, "do_lower_case": True})
    options = {"prompts": {"query": "query: ", "document": None}, "default_prompt_name": "query"}
    write_json(
        tmp_path / "config_sentence_transformers.json", {**options, "similarity_fn_name": "dot", "truncate_dim": 4}
    )

    assert head_of(tmp_path) == SentenceHead(
        dimensions=4,
        max_length=384,
        prompts={"query": "query: ", "document": ""},
        similarity="dot",
        default_prompt="query",
        lower_case=True,
    )


def test_an_encoder_in_a_folder_of_its_own(tmp_path: Path):
    write_model(tmp_path, "Normalize", encoder="0_Transformer")
    write_json(tmp_path / "0_Transformer/sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    write_json(tmp_path / "config.json", {"__version__": "0.3.6"})  # as early versions wrote it
    encoder = resolve_model_dir(str(tmp_path))

    assert encoder == str(tmp_path / "0_Transformer")
    assert read_sentence_head(encoder, None) == head_of(tmp_path) == SentenceHead(max_length=64)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_dense_layers_come_with_their_weights(tmp_path: Path, file: str):
    write_model(tmp_path, "Dense", "Dropout", "Normalize")
    write_json(tmp_path / "2_Dense/config.json", DENSE)
    weights = {"linear.weight": torch.randn(3, 8), "linear.bias": torch.randn(3)}
    if file == "model.safetensors":
        save_file({name: value.half() for name, value in weights.items()}, tmp_path / "2_Dense" / file)
    else:
        torch.save({name: value.half() for name, value in weights.items()}, tmp_path / "2_Dense" / file)
    head = head_of(tmp_path)

    [found] = read_dense_weights(str(tmp_path), head, None)

    assert head.dense == (DenseLayer(8, 3, True, "tanh"),)
    assert found.keys() == {"weight", "bias"}
    assert torch.equal(found["weight"], weights["linear.weight"].half().float())


HEADS = [
    SentenceHead(),
    SentenceHead("cls", normalize=False, max_length=20, prompts={"query": "q: "}, default_prompt="query"),
    SentenceHead("max", dense=(DenseLayer(8, 6, True, "tanh"), DenseLayer(6, 4, False, "identity")), lower_case=True),
    SentenceHead(dimensions=3, similarity="dot"),
    SentenceHead(dense=(DenseLayer(8, 6, True, "gelu"),), dimensions=2, normalize=False),
]


@pytest.mark.parametrize("head", HEADS)
def test_what_is_written_is_read_again(tmp_path: Path, head: SentenceHead):
    write_json(tmp_path / "config.json", {"model_type": "bert", "hidden_size": 8})
    weights = [
        {"weight": torch.randn(each.outputs, each.inputs)} | ({"bias": torch.randn(each.outputs)} if each.bias else {})
        for each in head.dense
    ]

    write_sentence_modules(tmp_path, head, weights, 8)
    found = read_dense_weights(str(tmp_path), head_of(tmp_path), None)

    assert head_of(tmp_path) == head
    assert [each.keys() for each in found] == [each.keys() for each in weights]
    assert all(torch.equal(mine[name], each[name]) for mine, each in zip(found, weights, strict=True) for name in each)


def test_a_model_in_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    snapshot = tmp_path / "models--owner--name/snapshots" / ("a" * 40)
    write_model(snapshot, "Normalize")
    (tmp_path / "models--owner--name/refs").mkdir()
    (tmp_path / "models--owner--name/refs/main").write_text("a" * 40)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    assert read_sentence_head("owner/name", None) == SentenceHead()
    with pytest.raises(UserError, match="Could not load model owner/other"):
        read_sentence_head("owner/other", None)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", {}, "an object in place of a JSON list"),
        ("modules.json", [], "none are not supported in this order"),
        ("modules.json", [{"type": OLD + "Transformer"}], "has no 'path'"),
        ("modules.json", [{"type": OLD + "Transformer", "path": "../x"}], "is no folder beside it"),
        ("modules.json", [{"type": OLD + "Transformer", "path": ".."}], "is no folder beside it"),
        ("modules.json", [{"type": "os.system", "path": ""}], "os.system is code of its own, which is never run"),
        ("modules.json", [{"type": OLD + "WordEmbeddings", "path": ""}], "WordEmbeddings is not supported"),
        ("modules.json", [{"type": OLD + "StaticEmbedding", "path": ""}], "Supported: an encoder, a pooling"),
        ("1_Pooling/config.json", {}, "has no 'word_embedding_dimension'"),
        ("1_Pooling/config.json", {"word_embedding_dimension": True}, "expected a whole number"),
        ("1_Pooling/config.json", {"word_embedding_dimension": 9}, "does not fit .*config.json"),
        ("1_Pooling/config.json", {**POOLED, "pooling_mode_cls_token": True}, "mean and cls is not supported"),
        ("1_Pooling/config.json", {**POOLED, "pooling_mode": "weightedmean"}, "weightedmean is not supported"),
        ("1_Pooling/config.json", {**POOLED, "pooling_mode": "lasttoken"}, "only one of mean, cls, max"),
        ("1_Pooling/config.json", {**POOLED, "include_prompt": False}, "include_prompt=false"),
        ("1_Pooling/config.json", {**POOLED, "pooling_mode_mean_tokens": "yes"}, "a text, expected true or false"),
        ("2_Dense/config.json", {**DENSE, "in_features": 9}, "in_features is 9, and the embeddings before it are of 8"),
        ("2_Dense/config.json", {**DENSE, "out_features": 10**12}, "from 1 to 1,000,000"),
        ("2_Dense/config.json", {**DENSE, "activation_function": "os.system"}, "os.system is not supported"),
        ("2_Dense/config.json", {**DENSE, "use_residual": True}, "with a residual"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length: expected a whole number"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "something else than an embedding"),
        ("config_sentence_transformers.json", {"prompts": ["a"]}, "prompts: expected an object of texts"),
        ("config_sentence_transformers.json", {"default_prompt_name": "a"}, "the name of one of the prompts"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "maxsim"}, "expected one of cosine"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "SparseEncoder is not supported"),
    ],
)
def test_what_is_damaged_or_not_supported_is_one_message(tmp_path: Path, file: str, content: object, message: str):
    write_model(tmp_path, "Dense", "Normalize")
    write_json(tmp_path / "2_Dense/config.json", DENSE)
    assert head_of(tmp_path).dense
    write_json(tmp_path / file, content)

    with pytest.raises(UserError, match=message) as caught:
        read_sentence_head(str(tmp_path), None)

    assert str(tmp_path / file) in str(caught.value)


@pytest.mark.parametrize("order", [["Normalize", "Dense"], ["Pooling"], ["Normalize", "Pooling"]])
def test_another_order_of_modules_is_refused(tmp_path: Path, order: list[str]):
    with pytest.raises(UserError, match=r"Transformer, Pooling, .* are not supported in this order"):
        read_sentence_head(str(write_model(tmp_path, *order)), None)


@pytest.mark.parametrize("file", ["modules.json", "1_Pooling/config.json", "2_Dense/config.json"])
def test_a_damaged_file_is_one_message(tmp_path: Path, file: str):
    write_model(tmp_path, "Dense")
    write_json(tmp_path / "2_Dense/config.json", DENSE)
    for damage in (b"", b"[{", b"\xff\xfe", b"[" * 100_000):
        (tmp_path / file).write_bytes(damage)
        with pytest.raises(UserError, match=file.replace(".", "[.]")):
            read_sentence_head(str(tmp_path), None)
    (tmp_path / file).unlink()
    (tmp_path / file).mkdir()
    with pytest.raises(UserError, match="is a directory"):
        read_sentence_head(str(tmp_path), None)


class Trap:
    """What a pickle runs that is loaded without ``weights_only``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this has run",))


def test_damaged_and_foreign_weights_of_a_dense_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_model(tmp_path, "Dense")
    write_json(tmp_path / "2_Dense/config.json", DENSE)
    head, folder = head_of(tmp_path), tmp_path / "2_Dense"
    good = {"linear.weight": torch.randn(3, 8), "linear.bias": torch.randn(3)}

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            read_dense_weights(str(tmp_path), head, None)

    refused("pytorch_model.bin is missing")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"linear.weight": Trap()}, protocol=2))
    refused("what else it holds is never run")
    torch.save([good], folder / "pytorch_model.bin")
    refused("pytorch_model.bin is damaged")
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    refused("model.safetensors is damaged")
    for wrong in (
        {**good, "linear.weight": torch.randn(8, 3)},
        {**good, "residual.weight": torch.randn(3, 8)},
        {"linear.weight": good["linear.weight"]},
        {**good, "linear.bias": torch.full((3,), torch.nan)},
        {**good, "linear.bias": torch.ones(3, dtype=torch.int8)},
    ):
        save_file(wrong, folder / "model.safetensors")
        refused("model.safetensors is damaged")
    assert capsys.readouterr().out == ""


def test_only_a_layer_of_ones_and_zeros_is_taken_for_a_cut(tmp_path: Path):
    write_json(tmp_path / "config.json", {"model_type": "bert", "hidden_size": 8})
    write_sentence_modules(tmp_path, SentenceHead(dimensions=3), [], 8)
    save_file({"linear.weight": torch.randn(3, 8)}, tmp_path / "2_Truncate/model.safetensors")

    assert head_of(tmp_path) == SentenceHead(dense=(DenseLayer(8, 3, False, "identity"),))
