"""What the files are scored on: the pairs of STS-B's validation rows, and SQuAD's dev set as a retrieval task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as parquet


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts with the scores that people gave them."""

    first: list[str]
    second: list[str]
    scores: list[float]


@dataclass(frozen=True)
class Retrieval:
    """Questions and the paragraphs that are searched. ``answers``: the number of each question's paragraph."""

    questions: list[str]
    paragraphs: list[str]
    answers: list[int]


def read_pairs(data: Path) -> Pairs:
    """Return the validation rows of STS-B."""
    table = parquet.read_table(data / "stsb/validation.parquet")
    return Pairs(*(table[name].to_pylist() for name in ("sentence1", "sentence2", "label")))


def read_retrieval(data: Path) -> Retrieval:
    """Return the questions of SQuAD dev with its distinct paragraphs."""
    table = parquet.read_table(data / "squad/validation.parquet", columns=["question", "context"])
    return make_retrieval(table["question"].to_pylist(), table["context"].to_pylist())


def make_retrieval(questions: list[str], contexts: list[str]) -> Retrieval:
    """Return the task to find the context of each question among all distinct contexts."""
    numbers = {context: number for number, context in enumerate(dict.fromkeys(contexts))}
    return Retrieval(questions, list(numbers), [numbers[context] for context in contexts])
