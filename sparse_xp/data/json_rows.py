"""Read rows from JSON and JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparse_xp.data.text_files import NumberedRecord, Record
from sparse_xp.errors import UserError, first_line
from sparse_xp.files.text_format import TextFormat

#: nesting depth of lists and objects in a value; the limits of Arrow and datasets are not much higher
MAX_DEPTH = 30


def read_json(path: Path, text: str, arrow: bool, text_format: TextFormat) -> list[NumberedRecord]:
    """Return the rows of a JSON text: a list, ``{"data": [rows]}``, the nested layout of SQuAD, or JSON lines.

    ``arrow``: see ``readers.read_records``.
    """
    try:
        rows = _parse(text, str(path))
    except json.JSONDecodeError as error:
        first = text.lstrip().partition("\n")[0]
        if error.msg == "Extra data" and first.rstrip().endswith("}"):
            return read_json_lines(path, text, arrow, text_format)
        raise UserError(f"{path}, line {error.lineno}, column {error.colno}: no JSON ({error.msg}).") from error
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        rows = rows["data"]
    if not isinstance(rows, list):
        raise UserError(f'{path}: expected a list of rows, or {{"data": [rows]}}; it is a {type(rows).__name__}.')
    for number, record in enumerate(rows):
        if not isinstance(record, dict):
            row_error = UserError(
                f"{path}: row {number} is a {type(record).__name__}, expected an object with the columns."
            )
            if arrow:
                raise row_error
            rows[number] = row_error
    if rows and isinstance(rows[0], dict) and "paragraphs" in rows[0]:
        rows = list(_squad_rows(path, rows))
    surrogates = bool(ESCAPED_SURROGATE.search(text))
    for number, record in enumerate(rows if arrow else ()):
        _check_record(record, f"{path}, row {number}", surrogates)
    return [([], row) for row in rows]


def read_json_lines(path: Path, text: str, arrow: bool, text_format: TextFormat) -> list[NumberedRecord]:
    """Return the rows of JSON lines. ``arrow``: see ``readers.read_records``."""
    records: list[NumberedRecord] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record: Any = _parse_row(line, where)
        except UserError as error:
            if arrow:
                raise
            record = error
        if arrow:
            _check_record(record, where, bool(ESCAPED_SURROGATE.search(line)))
        records.append(([number], record))
    return records


def _parse_row(line: str, where: str) -> Record:
    """Return the object in a line."""
    try:
        record = _parse(line, where)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}, column {error.colno}: no JSON ({error.msg}).") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object with the columns, not {type(record).__name__}.")
    return record


def _parse(text: str, where: str) -> Any:
    """Return the value of a JSON text.

    Raises JSONDecodeError for invalid JSON, and UserError for what Python refuses to read.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:  # for a number of thousands of digits
        raise UserError(f"{where}: {first_line(error).partition(';')[0]}. Write it as a text.") from error


def _too_deep(where: str) -> UserError:
    return UserError(f"{where}: lists and objects are nested deeper than {MAX_DEPTH}. Write rows of plain values.")


#: a UTF-16 surrogate as JSON escapes it; two of them in the right order are a character
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
#: a surrogate without its other half, in a parsed text
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _check_record(record: Record, where: str, surrogates: bool) -> None:
    """Raise UserError for a row that Arrow cannot hold, or that is empty."""
    if not record:
        raise UserError(f"{where}: it is empty, expected an object with the columns.")
    for name, whole in record.items():
        stack: list[tuple[Any, int]] = [(whole, 0)]
        if surrogates and LONE_SURROGATE.search(name):
            raise UserError(f"{where}: the name {name!r} has half of a character (\\ud...). Write it as UTF-8.")
        while stack:
            value, depth = stack.pop()
            kind = type(value)
            if kind is str:
                if surrogates and LONE_SURROGATE.search(value):
                    raise UserError(
                        f"{where}, column '{name}': half of a character "
                        f"({ascii(LONE_SURROGATE.findall(value)[0])[1:-1]}). Write the text as UTF-8."
                    )
            elif kind is int:
                if not -(1 << 63) <= value < 1 << 63:
                    raise UserError(f"{where}, column '{name}': a number beyond 64 bits. Write it as a text.")
            elif kind is dict or kind is list:
                if depth > MAX_DEPTH:
                    raise _too_deep(f"{where}, column '{name}'")
                if kind is dict:
                    stack.extend((key, depth + 1) for key in value)
                    value = value.values()
                stack.extend((inner, depth + 1) for inner in value)


def _squad_rows(path: Path, articles: list[Record]) -> Iterator[Record]:
    """Yield the questions in ``data -> paragraphs -> qas``, the layout of the official SQuAD files, v1.1 and v2.

    Each has the fields of its article and of its paragraph too. A task reads the answers as they are.
    """
    for number, article in enumerate(articles):
        try:
            of_article = {name: value for name, value in article.items() if name != "paragraphs"}
            for paragraph in article["paragraphs"]:
                of_paragraph = {"context": paragraph["context"], **paragraph}
                del of_paragraph["qas"]
                for question in paragraph["qas"]:
                    _ = question["question"]
                    yield {**of_article, **question, **of_paragraph}
        except KeyError as error:
            raise UserError(f"{path}: article {number} has a part without {error}; SQuAD's layout has it.") from error
        except (TypeError, AttributeError) as error:
            raise UserError(f"{path}: article {number} is not of SQuAD's layout ({first_line(error)}).") from error
