"""Rows out of a user's file: JSON, JSON lines, CSV, TSV, parquet and CoNLL text. Errors name the file and the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files import neighbours

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

Record = dict[str, Any]


def read_file(path: Path) -> Dataset:
    """The rows of ``path``, by the ending of its name. Raises UserError, with the line, for what cannot be read."""
    import pyarrow
    from datasets import Dataset

    if path.suffix.lower() == ".parquet" and path.is_file():
        return Dataset(_parquet(path))
    try:
        return Dataset.from_list(read_records(path))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise UserError(f"{path}: a column is not of one type in all rows ({error}).") from error


def read_records(path: Path) -> list[Record]:
    """The same rows as plain objects, without the library datasets."""
    if not path.is_file():
        raise UserError(f"No file {path}.{did_you_mean(path.name, neighbours(path))}")
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UserError(f"{path}: no way to read '{suffix}' files; want one of {' '.join(READERS)}.")
    if suffix == ".parquet":
        return _parquet(path).to_pylist()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason}). Save it as UTF-8.") from error
    records = READERS[suffix](path, text)
    if not records:
        raise UserError(f"{path} has no rows.")
    return records


def _parquet(path: Path) -> pyarrow.Table:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path} is not a parquet file ({str(error).splitlines()[0]}).") from error


def _json(path: Path, text: str) -> list[Record]:
    """A list of rows, ``{"data": [rows]}``, SQuAD's own nested layout, or rows line by line."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        first = text.lstrip().partition("\n")[0]
        if error.msg == "Extra data" and first.rstrip().endswith("}"):
            return _json_lines(path, text)
        raise UserError(f"{path}, line {error.lineno}, column {error.colno}: no JSON ({error.msg}).") from error
    if isinstance(found, dict) and isinstance(found.get("data"), list):
        found = found["data"]
    if not isinstance(found, list):
        raise UserError(f'{path}: want a list of rows, or {{"data": [rows]}}; it is a {type(found).__name__}.')
    for number, record in enumerate(found):
        if not isinstance(record, dict):
            raise UserError(f"{path}: row {number} is a {type(record).__name__}, want an object with the columns.")
    if found and "paragraphs" in found[0]:
        return list(_nested(path, found))
    return found


def _nested(path: Path, articles: list[Record]) -> Iterator[Record]:
    """Rows out of ``data -> paragraphs -> qas``, the layout of the official SQuAD files, v1.1 and v2."""
    for number, article in enumerate(articles):
        try:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = [] if asked.get("is_impossible") else asked["answers"]
                    yield {
                        "id": asked["id"],
                        "title": article.get("title", ""),
                        "context": paragraph["context"],
                        "question": asked["question"],
                        "answers": {
                            "text": [answer["text"] for answer in answers],
                            "answer_start": [answer["answer_start"] for answer in answers],
                        },
                    }
        except KeyError as error:
            raise UserError(f"{path}: article {number} has a part without {error}; SQuAD's layout wants it.") from error


def _json_lines(path: Path, text: str) -> list[Record]:
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}, column {error.colno}: no JSON ({error.msg}).") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: want an object with the columns, not {type(record).__name__}.")
        records.append(record)
    return records


def _separated(delimiter: str) -> Callable[[Path, str], list[Record]]:
    def read(path: Path, text: str) -> list[Record]:
        lines = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
        try:
            rows = [(lines.line_num, row) for row in lines if row]
        except csv.Error as error:
            raise UserError(f"{path}, line {lines.line_num}: {error}.") from error
        if not rows:
            return []
        (_, header), *body = rows
        if len(set(header)) < len(header):
            raise UserError(f"{path}, line 1: two columns have the same name: {', '.join(header)}.")
        for number, row in body:
            if len(row) != len(header):
                raise UserError(
                    f"{path}, line {number}: {len(row)} fields, but the first line names {len(header)} columns: "
                    f"{', '.join(header)}. Put quotes around a text that holds {delimiter!r}."
                )
        columns = {name: _numbers([row[i] for _, row in body]) for i, name in enumerate(header)}
        return [dict(zip(header, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    return read


def _numbers(values: list[str]) -> list[Any]:
    """The values as whole numbers if all are, else as numbers if all are, else as they are."""
    for kind in (int, float):
        try:
            return [kind(value) for value in values]
        except ValueError:
            continue
    return list(values)


def _conll(path: Path, text: str) -> list[Record]:
    """Words in the first column, tags in the last; a blank line ends a sentence; ``-DOCSTART-`` lines are left out."""
    records: list[Record] = []
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fields = line.split()
        if not fields or fields[0] == "-DOCSTART-":
            if words:
                records.append({"tokens": words, "tags": tags})
                words, tags = [], []
        elif len(fields) < 2:
            raise UserError(f"{path}, line {number}: {fields[0]!r} has no tag; want a word, white space and its tag.")
        else:
            words.append(fields[0])
            tags.append(fields[-1])
    return records


READERS: dict[str, Callable[[Path, str], list[Record]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".conll": _conll,
    ".bio": _conll,
    ".iob": _conll,
    ".txt": _conll,
    ".parquet": lambda path, text: [],  # read from its bytes
}
