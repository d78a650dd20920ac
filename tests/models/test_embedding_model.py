"""Encoders with a vector for each text: pooling, saving, loading, and every family of encoders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel

from sparse_xp.errors import UserError
from sparse_xp.functional.pooling import pool
from sparse_xp.models.embedding_model import (
    EMBEDDING,
    add_sentence_head,
    embedding_class,
    prompt_remark,
    size_of_embedding,
)
from sparse_xp.models.loading import load_model
from sparse_xp.models.sentence_modules import DenseLayer, SentenceHead
from sparse_xp.tasks import SentenceEmbedding

DEFAULT = SentenceHead()
TASK = SentenceEmbedding(name="texts", dataset=None)
TOKENS = {
    "input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]),
    "attention_mask": torch.tensor([[1] * 4, [1, 1, 1, 0]]),
}


def small_config() -> BertConfig:
    return BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip


def saved_encoder(directory: Path) -> Path:
    torch.manual_seed(0)
    BertModel(small_config()).save_pretrained(directory)
    return directory


def embedding_model(head: SentenceHead = DEFAULT) -> BertModel:
    torch.manual_seed(0)
    model = embedding_class(BertModel)(small_config())
    add_sentence_head(model, head)
    return model.eval()


def test_the_vector_of_a_text_is_pooled_from_its_tokens_and_has_length_1(tmp_path: Path):
    model, new = load_model(TASK, str(saved_encoder(tmp_path)))
    model.eval()

    outputs = model(**TOKENS)
    pooled = pool(
        AutoModel.from_pretrained(tmp_path).eval()(**TOKENS).last_hidden_state, TOKENS["attention_mask"], "mean"
    )

    assert new == []
    assert torch.allclose(outputs[EMBEDDING], pooled / pooled.norm(dim=1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_padding_changes_no_vector(pooling: str):
    model = embedding_model(SentenceHead(pooling=pooling))

    alone = model(**{name: value[1:, :3] for name, value in TOKENS.items()})[EMBEDDING]

    assert torch.allclose(model(**TOKENS)[EMBEDDING][1:], alone, atol=1e-6)


def test_a_model_called_without_a_mask_has_no_padding():
    model = embedding_model()
    whole = {name: value[:1] for name, value in TOKENS.items()}

    assert torch.allclose(model(input_ids=whole["input_ids"])[EMBEDDING], model(**whole)[EMBEDDING], atol=1e-6)


def test_a_cut_vector_has_length_1_again():
    model = embedding_model(SentenceHead(dimensions=4))
    whole = embedding_model()(**TOKENS)[EMBEDDING][:, :4]

    assert size_of_embedding(model) == 4
    assert torch.allclose(model(**TOKENS)[EMBEDDING], whole / whole.norm(dim=1, keepdim=True), atol=1e-6)


def test_a_saved_model_is_the_same_when_it_is_loaded(tmp_path: Path):
    head = SentenceHead("max", False, (DenseLayer(16, 6, True, "tanh"),), max_length=20)
    model = embedding_model(head)

    model.save_pretrained(tmp_path)
    loaded, _ = load_model(replace(TASK, max_length=20), str(tmp_path))

    assert loaded.sentence_head == head
    assert size_of_embedding(loaded) == 6
    assert torch.equal(loaded.eval()(**TOKENS)[EMBEDDING], model(**TOKENS)[EMBEDDING])


def test_the_encoder_in_the_file_is_that_of_transformers_with_its_pooler(tmp_path: Path):
    stock = BertModel.from_pretrained(saved_encoder(tmp_path / "stock"))
    model, _ = load_model(TASK, str(tmp_path / "stock"))
    assert model.pooler is None  # nothing reads it: it is neither pruned nor quantized

    model.save_pretrained(tmp_path / "model")
    again, info = BertModel.from_pretrained(tmp_path / "model", output_loading_info=True)

    assert json.loads((tmp_path / "model/config.json").read_text())["architectures"] == ["BertModel"]
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in stock.state_dict().items())


def test_the_task_says_how_to_pool_where_it_is_asked(tmp_path: Path):
    task = replace(TASK, pooling="cls", normalize_embeddings=False, dimensions=3, metric="")

    model, _ = load_model(task, str(saved_encoder(tmp_path)))

    assert model.sentence_head == SentenceHead("cls", False, dimensions=3, max_length=128)


def test_more_dimensions_than_there_are_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"task.dimensions=17: the embeddings of .* have 16 numbers"):
        load_model(replace(TASK, dimensions=17, metric=""), str(saved_encoder(tmp_path)))


def test_prompts_of_the_checkpoint_that_the_task_does_not_use_are_named():
    model = embedding_model(SentenceHead(prompts={"query": "query: ", "document": ""}))

    assert "trained with prompts (query: 'query: ')" in prompt_remark(model, {})
    assert prompt_remark(model, {"prompts": {"query": "query: "}}) == ""
    assert prompt_remark(embedding_model(), {}) == ""
