"""Checkpoints and rows for measurements: models of two shapes with a head for the task, made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForQuestionAnswering
from transformers import BertForSequenceClassification as BertForTexts

HEADS: dict[str, Any] = {"sst2": BertForTexts, "squad": BertForQuestionAnswering, "wikipedia_mlm": BertForMaskedLM}
#: paragraphs that are joined, so that most windows have the full 384 tokens
JOINED = 10


def kind_of(task: str) -> str:
    """Return the task of the package whose rows a case reads."""
    return "squad" if task == "long" else task


def make_checkpoint(minilm: Path, shape: str, task: str, work: Path, layers: int = 12) -> Path:
    """Return the directory of a model with a head for the task, made once.

    ``shape``: ``minilm`` has that model's encoder; ``base`` is BERT-base, with ``layers`` of random weights, which take
    as long as others.
    """
    place = work / "checkpoints" / f"{shape}-{kind_of(task)}"
    if (place / "config.json").exists():
        return place
    torch.manual_seed(0)
    labels = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    options: dict[str, Any] = labels if task == "sst2" else {}
    cls = HEADS[kind_of(task)]
    if shape == "minilm":
        model = cls.from_pretrained(minilm, dtype=torch.float32, **options)
    else:
        model = cls(BertConfig(vocab_size=30522, num_hidden_layers=layers, **options))
    AutoTokenizer.from_pretrained(minilm).save_pretrained(place)
    model.save_pretrained(place)
    return place


def make_long_rows(data: Path, work: Path) -> Path:
    """Return a mirror whose SQuAD has contexts of several paragraphs, made once."""
    mirror = work / "long"
    for split in ("train", "validation"):
        path = mirror / "squad" / f"{split}.parquet"
        if not path.exists():
            table = pyarrow.parquet.read_table(data / "squad" / f"{split}.parquet").slice(0, 2000)
            rows = table.to_pylist()
            contexts = list(dict.fromkeys(row["context"] for row in rows))
            for row in rows:
                at = contexts.index(row["context"])
                row["context"] = " ".join(contexts[at : at + JOINED])  # the answer keeps its place: its own comes first
            path.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), path)
    return mirror
