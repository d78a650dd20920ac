"""Files of questions drawn at random: answers in every layout, right and wrong, in every format."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from typing import Any

import pyarrow
import pyarrow.parquet

CONTEXTS = [
    "It was Ada.",
    "Bob met Bob.",
    "cafe\u0301 \U0001f600 Ada",
    "a\r\nAda\n[Ada]",
    "",
    " ",
    None,
    5,
    ["Ada"],
    {"text": "Ada"},
]
TEXTS = ["Ada", "Bob", "Eve", "", " ", "[Ada]", "e\u0301 \U0001f600", "\ud83d", None, 5, 1.5, True, ["Ada"], {"a": 1}]
STARTS = [7, 0, -1, 7.0, 7.5, "7", "x", "", None, True, 10**18, 10**30, float("nan"), [7], {}, "9" * 5000]
FLAGS = [True, False, "True", "0", 0, 1, None, "maybe", [], 0.5]
IDS = ["a", "b", 1, None, "", 1.5, [], True]


def draw_answers(rng: random.Random) -> Any:
    """A value of the column of answers."""
    texts, starts = ["Ada"] * 20 + TEXTS, [0, 7] * 10 + STARTS
    text, start = rng.choice(texts), rng.choice(starts)
    count = rng.randrange(3)
    lists = {
        "text": [rng.choice(texts) for _ in range(count)],
        "answer_start": [rng.choice(starts) for _ in range(count)],
    }
    layouts: list[Any] = [
        {"text": ["Ada"], "answer_start": [7]},
        lists,
        {**lists, "answer_start": lists["answer_start"][1:]},
        [{"text": text, "answer_start": start} for _ in range(count)],
        {"text": text, "answer_start": start},
        {"text": text},
        {"start": start},
        [text, rng.choice(TEXTS)],
        text,
        text,
        [],
        {},
        None,
    ]
    value = rng.choice(layouts)
    return rng.choice([*[value] * 9, str(value), f"{value}"[:-1], f"array({value})"])


def draw_row(rng: random.Random) -> dict[str, Any]:
    """A question, right or wrong, with some of the columns."""
    row: dict[str, Any] = {
        "question": rng.choice([*["Who?"] * 50, "", None, 5, ["Who?"], "who " * 60]),
        "context": rng.choice(CONTEXTS[:4] * 20 + CONTEXTS),
        "answers": draw_answers(rng),
    }
    others = {"id": IDS, "is_impossible": FLAGS, "answer_start": STARTS, "plausible_answers": TEXTS}
    row |= {name: rng.choice(values) for name, values in others.items() if rng.random() < 0.2}
    if rng.random() < 0.1:
        del row[rng.choice(list(row))]
    return row


def nested(rows: list[dict[str, Any]], rng: random.Random) -> Any:
    """The rows in the layout of SQuAD's files, at times with a part missing or of another type."""
    articles: list[Any] = []
    for row in rows:
        question = {name: value for name, value in row.items() if name != "context"}
        paragraph: Any = {"context": row.get("context"), "qas": [question]}
        if rng.random() < 0.1:
            paragraph = rng.choice(
                [{"qas": [question]}, {"context": "Ada"}, {"context": "Ada", "qas": [5]}, 5, None, "text"]
            )
        articles.append({"title": "T", "paragraphs": [paragraph]})
    return {"version": "1", "data": articles}


def draw_files(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """So many files, each a name with its suffix and contents: the same for the same seed."""
    rng = random.Random(seed)
    for number in range(count):
        rows = [draw_row(rng) for _ in range(rng.choice([1, 1, 2, 4]))]
        layout = rng.choice(["list", "data", "lines", "nested", "csv", "parquet"])
        if layout == "csv":
            text = io.StringIO()
            writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
            yield f"{number}.csv", text.getvalue().encode("utf-8", "surrogatepass")
        elif layout == "parquet":
            file = io.BytesIO()
            try:
                pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
            except (pyarrow.ArrowException, UnicodeEncodeError, OverflowError):
                continue  # Arrow writes no such file
            yield f"{number}.parquet", file.getvalue()
        elif layout == "lines":
            yield f"{number}.jsonl", "\n".join(map(json.dumps, rows)).encode()
        else:
            values = {"list": rows, "data": {"data": rows}, "nested": nested(rows, rng)}
            yield f"{number}.json", json.dumps(values[layout]).encode()
