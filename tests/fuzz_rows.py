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
        ".txt": "".join(f"First B\nsecond{i} O\n\n" for i in range(9)),
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


#: what people have in files of labelled texts and tagged words; those that can be used stand first
TEXT_CELLS = [
    "good film",
    "2020",
    "a, b; c\td",
    'say "x"',
    "a\u2028b",
    '"',
    "\x85",
    "a\rb",
    "#",
    "\xa0",
    "x" * 300,
    "",
    " ",
]
LABEL_CELLS = [
    "0",
    "1",
    "01",
    "pos",
    "NA",
    "1_1",
    "1.0",
    "true",
    "True",
    "nan",
    "None",
    "['a', 'b']",
    "[0 1]",
    "-1",
    "",
    " ",
]
NUMBER_CELLS = ["0", "-1", "2.5", "1e3", " 7 ", "1_1", "3,5", "nan", "inf", "", "True"]
LABEL_VALUES: list[Any] = [
    *(0, 1, 2, 7, True, "0", "pos", 1.0, 0.5, None, "", -1, float("nan"), [], ["a"], [0], [None], {"a": 1}, 1 << 70)
]
TAG_CELLS = ["O", "B-A", "I-A", "E-A", "S-A", "L-B", "U-B", "foo", "B-", "-", "#", "0", "1"]
TAG_VALUES: list[Any] = [*TAG_CELLS, 0, 1, -1, 1.0, None, True, ["O"]]
LISTS = [
    "['O', 'B-A']",
    "['O' 'B-A']",
    "['B-A', 'O']",
    "['I-A' 'E-A']",
    "['O']",
    "[]",
    "['a'",
    "[a b]",
    "[0 1]",
    "a b",
    "[None]",
]
LINE_ENDS = ["\n", "\n", "\n", "\r\n", "\r", "\n\n", "\n# id 1\n", "\n-DOCSTART- -X- O\n"]
ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"]


def drawn_files(seed: int, count: int) -> Iterator[tuple[str, str, bytes]]:
    """So many files for a kind of task (``text``, ``regression``, ``several``, ``tags``): kind, name and contents."""
    rng = random.Random(seed)
    for number in range(count):
        kind = rng.choice(["text", "text", "regression", "several", "tags", "tags"])
        suffix = rng.choice([".csv", ".tsv", ".jsonl", *([".conll"] * 3 if kind == "tags" else [])])
        text = {".jsonl": drawn_json, ".conll": drawn_conll}.get(suffix, drawn_csv)(kind, rng)
        yield kind, f"{number}{suffix}", text.encode(rng.choice(ENCODINGS), errors="replace")


def some(values: list[Any], rng: random.Random) -> list[Any]:
    """A few of the values: more often than not of the first, which can be used."""
    return rng.sample(values[: rng.choice([4, 4, len(values)])], 3)


def drawn_csv(kind: str, rng: random.Random) -> str:
    """Rows with separated columns, some of them quoted, seldom all as wide."""
    separator, end = rng.choice(",;\t|"), rng.choice(LINE_ENDS)
    names, columns = ("text", "label"), (TEXT_CELLS, NUMBER_CELLS if kind == "regression" else LABEL_CELLS)
    if kind in ("tags", "several"):
        names, columns = (("tokens", "tags"), (LISTS, LISTS)) if kind == "tags" else (names, (TEXT_CELLS, LISTS))
    lines = [separator.join(names)]
    few = [some(cells, rng) for cells in columns]
    for _ in range(rng.randrange(12)):
        row = [rng.choice(cells) for cells in few]
        quote = rng.random() < 0.9
        quoted = [f'"{cell.replace(chr(34), chr(34) * 2)}"' if quote else cell for cell in row]
        lines.append(separator.join(quoted + ["more"] * (rng.random() < 0.03)))
    return end.join(lines) + end * rng.randrange(2)


def drawn_json(kind: str, rng: random.Random) -> str:
    """Rows as JSON lines, seldom without a column."""
    texts, values, tags = some(TEXT_CELLS, rng), some(LABEL_VALUES, rng), some(TAG_VALUES, rng)
    lines = []
    for _ in range(rng.randrange(12)):
        label = rng.choice(values)
        record = {"text": rng.choice(texts), "label": [label] if kind == "several" and rng.random() < 0.95 else label}
        if kind == "tags":
            length = rng.randrange(1, 4)
            record = {"tokens": rng.choices(texts, k=length), "tags": rng.choices(tags, k=length)}
        if rng.random() < 0.02:
            record.popitem()
        lines.append(json.dumps(record, ensure_ascii=rng.random() < 0.5))
    return rng.choice(["\n", "\n", "\r\n", "\r"]).join(lines)


def drawn_conll(kind: str, rng: random.Random) -> str:
    """Sentences of words and tags, seldom without one of them."""
    separator, words, tags = rng.choice([" ", "\t", "  ", " X "]), some(TEXT_CELLS, rng), some(TAG_CELLS, rng)
    lines = []
    for _ in range(rng.randrange(20)):
        cells = [rng.choice(words).replace(" ", "").replace("\t", "") or "x", rng.choice(tags)]
        lines.append("" if rng.random() < 0.2 else separator.join(cells[: 1 + (rng.random() < 0.99)]))
    return "".join(line + (rng.choice(LINE_ENDS) if rng.random() < 0.1 else "\n") for line in lines)
