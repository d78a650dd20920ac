"""Files of rows of every format, valid and then damaged at random: what a reader may meet."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import pyarrow
import pyarrow.parquet

ROWS: list[dict[str, Any]] = [
    {
        "id": f"q{i}",
        "text": f"Ada wr\u00f6te {i} \U0001f600",
        "label": i % 2,
        "answers": {"text": ["Ada"], "start": [i]},
    }
    for i in range(12)
]
SQUAD = {
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "It was Ada.",
                    "qas": [{"id": "q1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 7}]}],
                }
            ],
        }
    ]
}
#: what damage may bring in, beside any byte
WORDS = [
    b"\0",
    b"\xff",
    b"\xed\xa0\xbd",
    b'"\\ud83d"',
    b"{",
    b"[" * 1200,
    b'{"a":' * 1200,
    b"9" * 5000,
    b'"',
    b"\n",
    b"\r",
    b"\t",
    b",",
    b"-1e999",
    b"null",
    b"PAR1",
    b"\xff\xff\xff\x7f",
    b"x" * 140_000,
]


def parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    """The rows as the bytes of a parquet file."""
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, **options)
    return file.getvalue()


@cache
def whole_files() -> tuple[tuple[str, bytes], ...]:
    """A valid file of each format, and of parquet some for its ways to write a column: suffix and contents."""
    lines = "".join(json.dumps(row, ensure_ascii=bool(i % 2)) + "\n" for i, row in enumerate(ROWS))
    flat = [(row["id"], f'"{row["text"]}, so"', str(row["label"])) for row in ROWS]
    texts = {
        ".json": json.dumps(ROWS),
        ".jsonl": lines,
        ".ndjson": lines,
        ".csv": "".join(",".join(row) + "\n" for row in [("id", "text", "label"), *flat]),
        ".tsv": "".join("\t".join(row) + "\r\n" for row in [("id", "text", "label"), *flat]),
        ".conll": "".join(f"Ada NNP B-PER\nwr\u00f6te VBD O\n{i} CD O\n\n" for i in range(9)),
        ".txt": "".join(f"First B\nsecond {i} O\n\n" for i in range(9)),
    }
    found = [(suffix, text.encode()) for suffix, text in texts.items()]
    found.append((".json", json.dumps(SQUAD).encode()))
    ways: list[dict[str, Any]] = [
        {"compression": "zstd"},
        {"compression": "snappy", "write_page_checksum": True},
        {"compression": "none", "data_page_version": "2.0", "row_group_size": 5},
        {"compression": "none", "use_dictionary": False},
        {"compression": "gzip", "use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    ]
    found += [(".parquet", parquet(ROWS, **way)) for way in ways]
    return tuple(found)


def damaged(contents: bytes, rng: random.Random) -> bytes:
    """The contents with one to three places damaged."""
    data = bytearray(contents)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(data) + 1)
        length = rng.choice([1, 1, 2, 8, 100])
        match rng.randrange(7):
            case 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                if place < len(data):
                    data[place] ^= 1 << rng.randrange(8)
            case 2:
                del data[place : place + length]
            case 3:
                del data[place:]
            case 4:
                data[place:place] = rng.choice(WORDS)
            case 5:
                data[place : place + length] = rng.randbytes(length)
            case _:
                other = rng.randrange(len(data) + 1)
                data[place:place] = data[other : other + length]
    return bytes(data)


def damaged_files(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """So many files, each a name with its suffix and contents: the same for the same seed."""
    rng = random.Random(seed)
    whole = whole_files()
    for number in range(count):
        # As many of parquet as of all texts, since a small part of such a file decides over the rest of it.
        suffix, contents = rng.choice(whole)
        if rng.random() < 0.03:
            contents = rng.randbytes(rng.randrange(200))
        elif rng.random() < 0.03:
            contents = rng.choice(whole)[1]  # of another format
        else:
            contents = damaged(contents, rng)
        yield f"{number}{suffix}", contents
