"""Texts and numbers in the columns of rows: empty ones are named with their place."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING

from sparse_xp.data.table import Table, place_of, with_values
from sparse_xp.errors import UserError, shortened
from sparse_xp.tasks.columns import TEXT
from sparse_xp.tasks.labels import NUMBER

if TYPE_CHECKING:
    from datasets import Dataset


def check_texts(rows: Table | Dataset, column: str, source: str, strict: bool) -> list[str]:
    """Return a remark on empty texts in a column of texts, or raise UserError for the first of them (``strict``)."""
    from pyarrow import compute

    values = rows.data.column(column)
    if not TEXT.matches(values.type) or values.null_count == len(values):
        return []
    empty = compute.equal(compute.utf8_trim_whitespace(values), "")
    first = compute.index(empty, True).as_py()
    if first < 0:
        return []
    if strict:
        raise UserError(
            f"{place_of(rows, source, first)}: the text in column {column} is empty. Write one, or leave the row out."
        )
    count = compute.sum(empty).as_py()
    return [f"{place_of(rows, source, first)}: the text in column {column} is empty, as in {count} of {len(rows)} rows"]


def check_header(rows: Table | Dataset, columns: list[str], source: str) -> None:
    """Raise UserError for a row that has its columns' names for values: the header of another file, say."""
    from pyarrow import compute

    if not set(columns) <= set(rows.column_names):
        return
    values = [rows.data.column(column) for column in columns]
    if not all(TEXT.matches(each.type) and each.null_count < len(each) for each in values):
        return
    found = reduce(compute.and_, [compute.equal(each, name) for each, name in zip(values, columns, strict=True)])
    row = compute.index(found, True).as_py()
    if row >= 0:
        raise UserError(
            f"{place_of(rows, source, row)}: the names of the columns once more ({', '.join(columns)}). Leave the row "
            "out."
        )


def normalize_numbers(rows: Table | Dataset, column: str, source: str) -> Table | Dataset:
    """Return the rows with the numbers of a column as floats, texts of numbers among them.

    Raises UserError, with the place, for anything else.
    """
    values = rows[column]
    numbers = [_number(value) for value in values]
    if None in numbers:
        row = numbers.index(None)
        raise UserError(f"{place_of(rows, source, row)}: {_no_number(values[row], column)}")
    return with_values(rows, column, numbers)


def check_range(
    rows: Table | Dataset, column: str, source: str, lowest: float, highest: float | None, reason: str
) -> None:
    """Raise UserError, with its place and the ``reason``, for a number out of range. ``highest``: None for any."""
    for row, value in enumerate(rows[column]):
        if value < lowest or (highest is not None and value > highest):
            expected = f"from {lowest:g} to {highest:g}" if highest is not None else f"of {lowest:g} or more"
            raise UserError(
                f"{place_of(rows, source, row)}: {column}={value:g}, expected a number {expected}: {reason}."
            )


def _number(value: object) -> float | None:
    """Return a value as a finite float, None if it is none."""
    if isinstance(value, str):
        value = float(value) if NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return None
    return float(value)


def _no_number(value: object, column: str) -> str:
    """Return the end of a message about a value that is no number."""
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return f"no number in column {column}. Write one, or leave the row out."
    text = str(value).strip()
    with_point = text.replace(",", ".", 1)
    advice = ""
    if NUMBER.fullmatch(text):
        advice = " It is beyond the range of 64-bit floats."
    elif NUMBER.fullmatch(with_point):
        advice = f" Write {with_point}."
    return f"{column}={shortened(repr(value), 50)}, expected a number.{advice}"
