"""docs/embeddings.md: its commands compose, and its examples of production give the same embeddings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import WORDS, make_tokenizer
from transformers import BertConfig, BertModel

import sparse_xp
from sparse_xp.models.embedding_model import add_sentence_head, embedding_class
from sparse_xp.models.sentence_modules import SentenceHead
from sparse_xp.places import CONF
from sparse_xp.tasks import SentenceEmbedding
from tests.runs import configure
from tests.shown_commands import commands, points

PAGE = CONF.parent / "docs" / "embeddings.md"
TEXT = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""


def test_the_page_has_commands():
    assert len(commands(TEXT)) >= 5


@pytest.mark.parametrize("line", commands(TEXT))
def test_a_command_of_the_page_composes(line: str):
    for overrides in points(line):
        configure(*overrides)


def test_the_pipeline_and_plain_onnxruntime_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=128,
    )  # fmt: skip
    model = embedding_class(BertModel)(config)
    add_sentence_head(model, SentenceHead())
    rows = [{"text": "the cat sat"}, {"text": "red"}]
    task = SentenceEmbedding(name="texts", dataset=None)
    sparse_xp.export(model, make_tokenizer(), tmp_path / "RUN/deployment", task=task, rows=rows)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    found = []
    for line in ("sparse_xp.Pipeline(", "InferenceSession("):
        (block,) = (each for each in blocks if line in each and "rerank" not in each)
        names: dict[str, Any] = {}
        exec(compile(block, PAGE.name, "exec"), names)  # noqa: S102
        found.append(names["embeddings"])
    assert found[0].shape == (2, 8)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
