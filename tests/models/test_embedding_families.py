"""Embedding models of every family of encoders: loaded, saved, opened again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from sparse_xp.models.embedding_model import EMBEDDING
from sparse_xp.models.loading import load_model
from sparse_xp.models.tokenizers import drop_token_types, load_tokenizer
from sparse_xp.tasks import SentenceEmbedding
from tests.families import FAMILIES, build_checkpoint

TASK = SentenceEmbedding(name="texts", dataset=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_embedding_model_is_its_encoder_and_gives_the_same_vectors(tmp_path: Path, family: str):
    checkpoint = build_checkpoint(family, tmp_path / "checkpoint")
    model, _ = load_model(TASK, str(checkpoint))
    tokenizer = load_tokenizer(str(checkpoint))
    drop_token_types(tokenizer, model.config)
    inputs = dict(tokenizer(["a fine film", "the cat sleeps on the mat"], padding=True, return_tensors="pt"))
    vectors = model.eval()(**inputs)[EMBEDDING]

    model.save_pretrained(tmp_path / "model")
    again, _ = load_model(TASK, str(tmp_path / "model"))
    stock, info = transformers.AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)

    assert torch.allclose(vectors.norm(dim=1), torch.ones(2))
    assert torch.equal(again.eval()(**inputs)[EMBEDDING], vectors)
    assert type(stock).__name__ == type(model).__name__
    assert not info["unexpected_keys"]
    assert all("pooler" in name for name in info["missing_keys"])
