"""Rows out of a user's file: JSON, JSON lines, CSV, TSV, parquet and CoNLL text. Errors name the file and the line.

Whatever is in a file, the result is its rows or one UserError.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.data.parquet import LIMITS, Limits, check_file, first_line, read_table, understood
from sparse_xp.errors import UserError
from sparse_xp.files import reading

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

Record = dict[str, Any]

#: lists and objects within each other in a value; Arrow's and datasets' own limits are not far above
DEEPEST = 30


def read_file(path: Path, limits: Limits = LIMITS) -> Dataset:
    """The rows of ``path``, by the ending of its name. Raises UserError, with the line, for what cannot be read."""
    from datasets import Dataset

    if path.suffix.lower() == ".parquet":
        return _dataset(path, read_table(path, limits))
    records = read_records(path, limits, arrow=True)
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    import pyarrow

    try:
        return Dataset.from_dict(columns)
    except (pyarrow.ArrowException, OverflowError) as error:
        raise UserError(f"{path}: {_odd_value(columns)}({first_line(error)}).") from error


def _dataset(path: Path, table: pyarrow.Table) -> Dataset:
    """The rows of a table, of which a file may say anything in the library's own words."""
    import pyarrow
    from datasets import Dataset

    try:
        return Dataset(table)
    except (
        pyarrow.ArrowException,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        NotImplementedError,
        RecursionError,
    ) as error:
        raise UserError(
            f"{path}: the library datasets takes no such columns ({first_line(error)}). Write them as texts, numbers, "
            "or lists of them."
        ) from error


def read_records(path: Path, limits: Limits = LIMITS, arrow: bool = False) -> list[Any]:
    """The same rows as plain objects, without the library datasets.

    ``arrow``: refuse rows that Arrow cannot hold; else one bad row does not stand in the way of the others, and a line
    that is no row has a UserError in its place.
    """
    check_file(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UserError(f"{path}: no way to read '{suffix}' files; want one of {' '.join(READERS)}.")
    if suffix == ".parquet":
        table = read_table(path, limits)
        with understood(path):
            records = table.to_pylist()
    else:
        text = read_text(path, limits)
        records = READERS[suffix](path, text, arrow) if text.strip() else []
        limits.check(path, len(records), 0)
    if not records:
        raise UserError(f"{path} has no rows.")
    if all(isinstance(record, UserError) for record in records):
        raise records[0]
    return records


def read_text(path: Path, limits: Limits = LIMITS) -> str:
    """A text file with one kind of line ends. Raises UserError, with the line, for one that is no text."""
    check_file(path)
    with reading(path):
        limits.check(path, 0, path.stat().st_size)
        data = path.read_bytes()
    nul = data.find(b"\0")
    if nul >= 0:
        line = data[:nul].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: a NUL byte; it is damaged, or not UTF-8. Save it as UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason}). Save it as UTF-8.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


# JSON


def _json(path: Path, text: str, arrow: bool) -> list[Any]:
    """A list of rows, ``{"data": [rows]}``, SQuAD's own nested layout, or rows line by line."""
    try:
        found = _parsed(text, str(path))
    except json.JSONDecodeError as error:
        first = text.lstrip().partition("\n")[0]
        if error.msg == "Extra data" and first.rstrip().endswith("}"):
            return _json_lines(path, text, arrow)
        raise UserError(f"{path}, line {error.lineno}, column {error.colno}: no JSON ({error.msg}).") from error
    if isinstance(found, dict) and isinstance(found.get("data"), list):
        found = found["data"]
    if not isinstance(found, list):
        raise UserError(f'{path}: want a list of rows, or {{"data": [rows]}}; it is a {type(found).__name__}.')
    for number, record in enumerate(found):
        if not isinstance(record, dict):
            told = UserError(f"{path}: row {number} is a {type(record).__name__}, want an object with the columns.")
            if arrow:
                raise told
            found[number] = told
    if found and isinstance(found[0], dict) and "paragraphs" in found[0]:
        found = list(_nested(path, found))
    surrogates = bool(SURROGATE.search(text))
    for number, record in enumerate(found if arrow else ()):
        _check_record(record, f"{path}, row {number}", surrogates)
    return found


def _json_lines(path: Path, text: str, arrow: bool) -> list[Any]:
    records: list[Any] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record: Any = _record(line, where)
        except UserError as error:
            if arrow:
                raise
            record = error
        if arrow:
            _check_record(record, where, bool(SURROGATE.search(line)))
        records.append(record)
    return records


def _record(line: str, where: str) -> Record:
    """The object in a line."""
    try:
        record = _parsed(line, where)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}, column {error.colno}: no JSON ({error.msg}).") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: want an object with the columns, not {type(record).__name__}.")
    return record


def _parsed(text: str, where: str) -> Any:
    """What a JSON text says. Raises JSONDecodeError for what is none, UserError for what Python refuses to read."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:  # the one for a number of thousands of digits
        raise UserError(f"{where}: {first_line(error).partition(';')[0]}. Write it as a text.") from error


def _too_deep(where: str) -> UserError:
    return UserError(f"{where}: lists and objects are nested deeper than {DEEPEST}. Write rows of plain values.")


#: how JSON writes half of a character; two of them in the right order are a whole one
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
#: the same where it stayed alone
ALONE = re.compile("[\ud800-\udfff]")


def _check_record(record: Record, where: str, surrogates: bool) -> None:
    """Raise UserError for a row that Arrow cannot hold, or that is empty."""
    if not record:
        raise UserError(f"{where}: it is empty, want an object with the columns.")
    for name, whole in record.items():
        stack: list[tuple[Any, int]] = [(whole, 0)]
        if surrogates and ALONE.search(name):
            raise UserError(f"{where}: the name {name!r} has half of a character (\\ud...). Write it as UTF-8.")
        while stack:
            value, depth = stack.pop()
            kind = type(value)
            if kind is str:
                if surrogates and ALONE.search(value):
                    raise UserError(
                        f"{where}, column '{name}': half of a character ({ascii(ALONE.findall(value)[0])[1:-1]}). "
                        "Write the text as UTF-8."
                    )
            elif kind is int:
                if not -(1 << 63) <= value < 1 << 63:
                    raise UserError(f"{where}, column '{name}': a number beyond 64 bits. Write it as a text.")
            elif kind is dict or kind is list:
                if depth > DEEPEST:
                    raise _too_deep(f"{where}, column '{name}'")
                if kind is dict:
                    stack.extend((key, depth + 1) for key in value)
                    value = value.values()
                stack.extend((inner, depth + 1) for inner in value)


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
        except (TypeError, AttributeError) as error:
            raise UserError(f"{path}: article {number} is not of SQuAD's layout ({first_line(error)}).") from error


def _odd_value(columns: dict[str, list[Any]]) -> str:
    """Which column, and the first row of it, is of another type than the rows above."""
    import pyarrow

    def fits(values: list[Any]) -> bool:
        try:
            pyarrow.array(values, from_pandas=True)
        except (pyarrow.ArrowException, OverflowError):
            return False
        return True

    for name, values in columns.items():
        if fits(values):
            continue
        good, bad = 0, len(values)  # so many rows fit together, so many do not
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if fits(values[:middle]) else (good, middle)
        return f"column '{name}' is not of one type in all rows: row {bad - 1} is of another than those above it "
    return "a column is not of one type in all rows "


# Text


def _separated(delimiter: str) -> Callable[[Path, str, bool], list[Record]]:
    def read(path: Path, text: str, arrow: bool) -> list[Record]:
        lines = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        try:
            # A line of empty cells, as spreadsheets append them, is as good as none.
            rows = [(lines.line_num, row) for row in lines if any(row) or len(row) == 1]
        except csv.Error as error:
            raise UserError(
                f"{path}, line {lines.line_num}: {error}. Look for a quote that is not closed; long texts are better "
                "written as JSON lines."
            ) from error
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
    """The values as whole numbers if all are, else as numbers if all are, else as they are.

    What is too large for 64 bits is no number: it could not be told from another.
    """
    for kind, fits in ((int, _fits_int), (float, _fits_float)):
        try:
            found = [kind(value) for value in values]
        except ValueError:
            continue
        if all(map(fits, found, values)):
            return found
    return list(values)


def _fits_int(number: float, text: str) -> bool:
    return -(1 << 63) <= number < 1 << 63


def _fits_float(number: float, text: str) -> bool:
    whole = text.strip().lstrip("+-").isdecimal()
    return not (math.isinf(number) and "inf" not in text.lower()) and not (whole and abs(number) >= 1 << 63)


def _conll(path: Path, text: str, arrow: bool) -> list[Record]:
    """Words in the first column, tags in the last; a blank line ends a sentence; ``-DOCSTART-`` lines are left out."""
    records: list[Record] = []
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
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


READERS: dict[str, Callable[[Path, str, bool], list[Record]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".conll": _conll,
    ".bio": _conll,
    ".iob": _conll,
    ".txt": _conll,
    ".parquet": lambda path, text, arrow: [],  # read from its bytes
}
