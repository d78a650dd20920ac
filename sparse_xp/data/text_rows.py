"""Read rows from CSV, TSV and CoNLL text."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparse_xp.data.text_files import Record
from sparse_xp.errors import UserError


def separated_reader(delimiter: str) -> Callable[[Path, str, bool], list[Record]]:
    """Return a reader of CSV text with this ``delimiter``; the first line names the columns."""

    def read(path: Path, text: str, arrow: bool) -> list[Record]:
        lines = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        try:
            # Spreadsheets append lines of empty cells; they are skipped.
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
    """Return the values of a column as integers if all are, else as floats if all are, else as texts.

    A number beyond 64 bits stays a text: rounded, it could equal another.
    """
    for kind, fits in ((int, _fits_int), (float, _fits_float)):
        try:
            numbers = [kind(value) for value in values]
        except ValueError:
            continue
        if all(map(fits, numbers, values)):
            return numbers
    return list(values)


def _fits_int(number: float, text: str) -> bool:
    return -(1 << 63) <= number < 1 << 63


def _fits_float(number: float, text: str) -> bool:
    whole = text.strip().lstrip("+-").isdecimal()
    return not (math.isinf(number) and "inf" not in text.lower()) and not (whole and abs(number) >= 1 << 63)


def read_conll(path: Path, text: str, arrow: bool) -> list[Record]:
    """Return the sentences of CoNLL text: words in the first column, tags in the last, a blank line after a sentence.

    Lines with ``-DOCSTART-`` are skipped.
    """
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
            raise UserError(
                f"{path}, line {number}: {fields[0]!r} has no tag; expected a word, white space and its tag."
            )
        else:
            words.append(fields[0])
            tags.append(fields[-1])
    return records
