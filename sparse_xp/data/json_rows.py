"""Read rows from JSON and JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from sparse_xp.data.text_files import NumberedRecord, Record
from sparse_xp.errors import UserError, first_line
from sparse_xp.files.untrusted_json import json_type

#: nesting depth of lists and objects in a value; the limits of Arrow and datasets are not much higher
MAX_DEPTH = 30


def read_json(path: Path, text: str, arrow: bool, used: Collection[str] | None) -> list[NumberedRecord]:
    """Return the rows of a JSON text: a list, ``{"data": [rows]}``, the nested layout of SQuAD, or JSON lines.

    ``arrow``: see ``readers.read_records``. ``used``: see ``readers.read_rows``.
    """
    try:
        rows = _parse(text, str(path))
    except json.JSONDecodeError as error:
        first = text.lstrip().partition("\n")[0]
        if error.msg == "Extra data" and first.rstrip().endswith("}"):
            return read_json_lines(path, text, arrow, used)
        raise UserError(
            f"{path}, line {error.lineno}, column {error.colno}: no JSON ({error.msg}).{_advice(error)}"
        ) from error
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        rows = rows["data"]
    if not isinstance(rows, list):
        raise UserError(f'{path}: expected a list of rows, or {{"data": [rows]}}; it is {_no_rows(rows)}')
    for number, record in enumerate(rows):
        if not isinstance(record, dict):
            row_error = UserError(f"{path}: row {number} is {json_type(record)}, expected an object with the columns.")
            if arrow:
                raise row_error
            rows[number] = row_error
    if rows and isinstance(rows[0], dict) and "paragraphs" in rows[0]:
        rows = list(_squad_rows(path, rows))
    surrogates = bool(ESCAPED_SURROGATE.search(text))
    for number, record in enumerate(rows if arrow else ()):
        _check_record(record, f"{path}, row {number}", surrogates, used)
    return [([], row) for row in rows]


def read_json_lines(path: Path, text: str, arrow: bool, used: Collection[str] | None) -> list[NumberedRecord]:
    """Return the rows of JSON lines. ``arrow``: see ``readers.read_records``; ``used``: see ``readers.read_rows``."""
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
            _check_record(record, where, bool(ESCAPED_SURROGATE.search(line)), used)
        records.append(([number], record))
    return records


def _parse_row(line: str, where: str) -> Record:
    """Return the object in a line."""
    try:
        record = _parse(line, where)
    except json.JSONDecodeError as error:
        advice = ONE_TEXT if line.strip() == "{" or line.lstrip().startswith("[") else _advice(error)
        raise UserError(f"{where}, column {error.colno}: no JSON ({error.msg}).{advice}") from error
    if not isinstance(record, dict):
        advice = ONE_TEXT if isinstance(record, list) else ""
        raise UserError(f"{where}: expected an object with the columns, not {json_type(record)}.{advice}")
    return record


#: advice about a file that is not of JSON lines
ONE_TEXT = " This format has one object in each line; name the file .json if it is one JSON text."


def _advice(error: json.JSONDecodeError) -> str:
    """Return what to write instead of a text that is no JSON, as a sentence after a blank; empty if that is unknown."""
    here = error.doc[error.pos :].lstrip()
    before = error.doc[: error.pos].rstrip()
    if error.msg == "Extra data" and here == ",":
        return " Leave out the comma at the end of the line."
    if error.msg == "Extra data" and here.startswith(","):
        return " Write [ and ] around the rows, or one row in each line without a comma after it."
    if here.startswith("'"):
        return ' Write texts and names in double quotes ("), as JSON has them and Python does not.'
    if here.startswith(("True", "False", "None")):
        return " Write true, false and null, as JSON has them."
    if before.endswith(",") and here.startswith(("]", "}")):
        return " Leave out the comma before the bracket."
    if not here or error.msg.startswith("Unterminated"):
        return " It ends too early: write the rest of it."
    return ""


def _no_rows(value: object) -> str:
    """Return what a JSON text is that is no list of rows, and what to write instead, as the end of a sentence."""
    if not isinstance(value, dict):
        return f"{json_type(value)}."
    keys = ", ".join(list(value)[:10]) or "no keys"
    parts = list(value.values())
    if parts and all(isinstance(part, dict) for part in parts):
        advice = "pandas writes rows with to_json(path, orient='records')"
    elif any(isinstance(part, list) and part and isinstance(part[0], dict) for part in parts):
        advice = "write a list of rows alone into a file"
    elif any(isinstance(part, list) for part in parts):
        advice = "write an object for each row, and not a list for each column"
    else:
        advice = "write [ and ] around a single row"
    return f"an object of {keys}: {advice}."


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


def _check_record(record: Record, where: str, surrogates: bool, used: Collection[str] | None) -> None:
    """Raise UserError for a row that Arrow cannot hold, or that is empty. Values that are not ``used`` are removed."""
    if not record:
        raise UserError(f"{where}: it is empty, expected an object with the columns.")
    for name, whole in list(record.items()):
        try:
            if surrogates and LONE_SURROGATE.search(name):
                raise UserError(f"{where}: the name {name!r} has half of a character (\\ud...). Write it as UTF-8.")
            _check_value(whole, f"{where}, column '{name}'", surrogates)
        except UserError:
            if used is None or name in used:
                raise
            del record[name]


def _check_value(whole: object, where: str, surrogates: bool) -> None:
    """Raise UserError for a value that Arrow cannot hold."""
    stack: list[tuple[Any, int]] = [(whole, 0)]
    while stack:
        value, depth = stack.pop()
        kind = type(value)
        if kind is str:
            if surrogates and LONE_SURROGATE.search(value):
                half = ascii(LONE_SURROGATE.findall(value)[0])[1:-1]
                raise UserError(f"{where}: half of a character ({half}). Write the text as UTF-8.")
        elif kind is int:
            if not -(1 << 63) <= value < 1 << 63:
                raise UserError(f"{where}: a number beyond 64 bits. Write it as a text.")
        elif kind is dict or kind is list:
            if depth > MAX_DEPTH:
                raise _too_deep(where)
            if kind is dict:
                stack.extend((key, depth + 1) for key in value)
                value = value.values()
            stack.extend((inner, depth + 1) for inner in value)


def _squad_rows(path: Path, articles: list[Record]) -> Iterator[Record]:
    """Yield the questions in ``data -> paragraphs -> qas``, the layout of the official SQuAD files, v1.1 and v2.

    Each has the fields of its article and of its paragraph too, of which those of the question take precedence, except
    over the context. A task reads the answers as they are.
    """
    for number, article in enumerate(articles):
        try:
            of_article = {name: value for name, value in article.items() if name != "paragraphs"}
            for paragraph in article["paragraphs"]:
                of_paragraph = {"context": paragraph["context"], **paragraph}
                del of_paragraph["qas"]
                for question in paragraph["qas"]:
                    _ = question["question"]
                    yield {**of_article, **of_paragraph, **question, "context": of_paragraph["context"]}
        except KeyError as error:
            raise UserError(f"{path}: article {number} has a part without {error}; SQuAD's layout has it.") from error
        except (TypeError, AttributeError) as error:
            raise UserError(f"{path}: article {number} is not of SQuAD's layout ({first_line(error)}).") from error
