"""Plain types for the columns of a parquet file: those that tasks, JSON and the library datasets know."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import DataType


def with_plain_types(rows: pyarrow.Table | pyarrow.RecordBatch) -> pyarrow.Table | pyarrow.RecordBatch:
    """Return the rows with plain types at any depth: no dictionary (pandas' categories), no view of texts or lists.

    A column that Arrow cannot convert stays as it is.
    """
    for place, field in enumerate(rows.schema):
        if _convertible(field.type, plain := _mapped(field.type, _plain)):
            rows = rows.set_column(place, field.with_type(plain), rows.column(place).cast(plain))
    return rows


def with_python_values(rows: pyarrow.Table) -> pyarrow.Table:
    """Return the rows with columns that Python can hold.

    Binary columns of UTF-8 become texts, and so do dates beyond the year 9999 and times of an unknown zone. A column
    that cannot be held in any way is left out.
    """
    import pyarrow

    for name in rows.schema.names:
        place, field = rows.schema.get_field_index(name), rows.schema.field(name)
        if _has(field.type, _is_bytes):
            rows = _replaced(rows, place, [_text_of_bytes])
        if _has(field.type, pyarrow.types.is_temporal) or pyarrow.types.is_struct(field.type):
            if not _held(rows.column(place)):
                rows = _replaced(rows, place, [_in_utc, _text_of_time])
            if not _held(rows.column(place)):
                rows = rows.remove_column(place)
    return rows


def _replaced(rows: pyarrow.Table, place: int, leaves: list[Callable[[DataType], DataType]]) -> pyarrow.Table:
    """Return the rows with the leaves of a column converted, one function after the other, if that can be done."""
    import pyarrow

    column, field = rows.column(place), rows.schema.field(place)
    try:
        for leaf in leaves:
            column = column.cast(_mapped(column.type, leaf))
    except pyarrow.ArrowException:
        return rows
    return rows.set_column(place, field.with_type(column.type), column)


def _held(column: pyarrow.ChunkedArray) -> bool:
    """Whether Python can hold the values of a column."""
    import pyarrow

    try:
        for chunk in column.chunks:
            chunk.to_pylist()
    except (pyarrow.ArrowException, ValueError, OverflowError, LookupError, OSError):
        return False
    return True


def _convertible(kind: DataType, other: DataType) -> bool:
    import pyarrow

    if kind == other:
        return False
    try:
        pyarrow.nulls(1, kind).cast(other)
    except pyarrow.ArrowException:
        return False
    return True


def _mapped(kind: DataType, leaf: Callable[[DataType], DataType]) -> DataType:
    """Return a type with ``leaf`` applied to its innermost types; views of lists become lists."""
    import pyarrow
    from pyarrow import types

    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_mapped(field.type, leaf)) for field in kind])
    if types.is_list(kind) or types.is_list_view(kind):
        return pyarrow.list_(kind.value_field.with_type(_mapped(kind.value_type, leaf)))
    if types.is_large_list(kind) or types.is_large_list_view(kind):
        return pyarrow.large_list(kind.value_field.with_type(_mapped(kind.value_type, leaf)))
    if types.is_fixed_size_list(kind):
        return pyarrow.list_(kind.value_field.with_type(_mapped(kind.value_type, leaf)), kind.list_size)
    if types.is_dictionary(kind):
        return _mapped(kind.value_type, leaf)
    return leaf(kind)


def _has(kind: DataType, test: Callable[[DataType], bool]) -> bool:
    """Whether one of the innermost types of ``kind`` passes a test."""
    found: list[bool] = []

    def leaf(inner: DataType) -> DataType:
        found.append(test(inner))
        return inner

    _mapped(kind, leaf)
    return any(found)


def _plain(kind: DataType) -> DataType:
    import pyarrow

    if pyarrow.types.is_string_view(kind):
        return pyarrow.string()
    return pyarrow.binary() if pyarrow.types.is_binary_view(kind) else kind


def _text_of_bytes(kind: DataType) -> DataType:
    import pyarrow

    if pyarrow.types.is_large_binary(kind):
        return pyarrow.large_string()
    return pyarrow.string() if _is_bytes(kind) else kind


def _in_utc(kind: DataType) -> DataType:
    import pyarrow

    return pyarrow.timestamp(kind.unit, "UTC") if pyarrow.types.is_timestamp(kind) and kind.tz else kind


def _text_of_time(kind: DataType) -> DataType:
    import pyarrow

    return pyarrow.string() if pyarrow.types.is_temporal(kind) else kind


def _is_bytes(kind: DataType) -> bool:
    from pyarrow import types

    return any(test(kind) for test in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary))
