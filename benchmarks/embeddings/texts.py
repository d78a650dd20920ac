"""Collect texts without labels, one a line:  python -m benchmarks.embeddings.texts DATA OUT.txt [--tokenizer FILE]

Of a local mirror of the data sets: QQP, MNLI, QNLI, SST-2, STS-B (training rows), SQuAD's training questions and
Wikipedia paragraphs, whole and as sentences. What the benchmark scores is not among them: neither the sentences of
STS-B's validation rows, nor the questions, the paragraphs and the sentences of SQuAD's dev set.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from sentencex import segment
from tokenizers import Tokenizer

#: file -> the columns that are texts
SOURCES = {
    "qqp/train": ("question1", "question2"),
    "qqp/validation": ("question1", "question2"),
    "mnli/train": ("premise", "hypothesis"),
    "qnli/train": ("question", "sentence"),
    "sst2/train": ("sentence",),
    "stsb/train": ("sentence1", "sentence2"),
    "squad/train": ("question",),
    "squad/more_questions": ("question",),
    "wiki_paragraphs/train": ("text",),
}
#: texts of several sentences, taken whole and sentence by sentence
PARAGRAPHS = ("wiki_paragraphs/train",)
#: shorter texts are left out: SST-2 has every phrase of its sentences, down to single words
FEWEST_WORDS = 4


def main() -> None:
    """Write the file, and say how many texts it has and how long they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json, to count tokens")
    options = parser.parse_args()
    texts = distinct(collect(options.data), held_out(options.data))
    random.Random(options.seed).shuffle(texts)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(texts) + "\n", encoding="utf-8")
    print(f"{options.out}: {len(texts)} texts")
    if options.tokenizer:
        print(describe_lengths(texts, Tokenizer.from_file(str(options.tokenizer))))


def collect(data: Path) -> Iterator[str]:
    """Yield the texts of all ``SOURCES``."""
    for name, columns in SOURCES.items():
        for text in read_columns(data / f"{name}.parquet", columns):
            yield text
            if name in PARAGRAPHS:
                yield from sentences(text)


def held_out(data: Path) -> Iterator[str]:
    """Yield every text that the benchmark scores, and each sentence of a scored paragraph."""
    yield from read_columns(data / "stsb/validation.parquet", ("sentence1", "sentence2"))
    yield from read_columns(data / "squad/validation.parquet", ("question",))
    for paragraph in dict.fromkeys(read_columns(data / "squad/validation.parquet", ("context",))):
        yield paragraph
        yield from sentences(paragraph)


def read_columns(path: Path, columns: Iterable[str]) -> Iterator[str]:
    """Yield the texts of the columns of a parquet file, column by column."""
    table = parquet.read_table(path, columns=list(columns))
    for name in columns:
        yield from table[name].to_pylist()


def sentences(text: str) -> list[str]:
    """Return the sentences of an English text."""
    return [part.strip() for part in segment("en", " ".join(text.split())) if part.strip()]


def distinct(texts: Iterable[str], excluded: Iterable[str]) -> list[str]:
    """Return each text once, on one line, without those that are too short or equal one of ``excluded``.

    Texts are equal if their letters and digits are.
    """
    seen = set(map(letters, excluded))
    kept = []
    for text in texts:
        line, key = " ".join(text.split()), letters(text)
        if key not in seen and len(line.split()) >= FEWEST_WORDS:
            seen.add(key)
            kept.append(line)
    return kept


def letters(text: str) -> str:
    """Return the letters and digits of a text in lower case, without anything between them."""
    return re.sub(r"[\W_]+", "", text.casefold())


def describe_lengths(texts: list[str], tokenizer: Tokenizer) -> str:
    """Return how many tokens the texts have."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = np.array([len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts)])
    parts = ", ".join(f"{share} % {np.percentile(lengths, share):.0f}" for share in (5, 50, 90, 99))
    over = ", ".join(f"{np.mean(lengths > limit):.1%} over {limit}" for limit in (64, 128, 256))
    return f"tokens: mean {lengths.mean():.1f}; {parts}; {over}"


if __name__ == "__main__":
    main()
