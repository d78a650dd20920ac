"""Rows of a file in memory, without the library datasets: its import takes longer than finding an error in the file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.errors import UserError, first_line

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset


class Table:
    """Rows as an Arrow table, under the names that ``datasets.Dataset`` gives to the same operations.

    ``data``: the rows. ``path``: the file that they come from, for messages. ``lines``: for each row the lines of the
    file where its parts begin (of a sentence its words); None for a format without lines. ``numbers``: for each row its
    number in the file; None if these are all its rows, in their order.
    """

    def __init__(
        self,
        data: pyarrow.Table,
        path: Path,
        lines: list[list[int]] | None = None,
        numbers: list[int] | None = None,
    ):
        self.data = data
        self.path = path
        self.lines = lines
        self.numbers = numbers

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def __getitem__(self, column: str) -> list[Any]:
        values: list[Any] = self.data.column(column).to_pylist()
        return values

    @property
    def column_names(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.data.column_names)

    def to_list(self) -> list[dict[str, Any]]:
        """Return each row as a dictionary."""
        rows: list[dict[str, Any]] = self.data.to_pylist()
        return rows

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the values of each column."""
        columns: dict[str, list[Any]] = self.data.to_pydict()
        return columns

    def place(self, row: int, part: int = 0) -> str:
        """Return where a row of these rows, or a part of it, is: the file and the line, or the number of the row."""
        return f"{self.path}, {self.number(row, part)}"

    def number(self, row: int, part: int = 0) -> str:
        """Return ``line N`` of the file for a row or a part of it; ``row N`` in a format without lines."""
        lines = self.lines[row] if self.lines else []
        if lines:
            return f"line {lines[min(part, len(lines) - 1)]}"
        return f"row {self.numbers[row] if self.numbers else row}"

    def select(self, indices: Iterable[int]) -> Table:
        """Return the rows of these numbers, which must ascend."""
        import numpy as np
        import pyarrow

        # A mask goes through the chunks one by one; ``take`` joins them, and more than 2 GB of texts do not fit one.
        chosen = np.zeros(len(self), bool)
        chosen[list(indices)] = True
        kept = [int(row) for row in chosen.nonzero()[0]]
        lines = [self.lines[row] for row in kept] if self.lines else None
        numbers = [self.numbers[row] for row in kept] if self.numbers else kept
        return Table(self.data.filter(pyarrow.array(chosen)), self.path, lines, numbers)

    def add_column(self, name: str, values: list[Any] | pyarrow.Array) -> Table:
        """Return the rows with one more column. ``values``: a list, or an Arrow array."""
        import pyarrow

        column = values if isinstance(values, (pyarrow.Array, pyarrow.ChunkedArray)) else pyarrow.array(values)
        return self.with_data(self.data.append_column(name, column))

    def remove_columns(self, name: str) -> Table:
        """Return the rows without this column."""
        return self.with_data(self.data.drop_columns([name]))

    def with_data(self, data: pyarrow.Table) -> Table:
        """Return a table of other columns for the same rows."""
        return Table(data, self.path, self.lines, self.numbers)

    def class_names(self, column: str) -> list[str] | None:
        """Return the names of a ClassLabel column, or of one of lists of ClassLabel; None for another column.

        datasets writes them into the metadata of a parquet file. Other metadata are passed over.
        """
        import pyarrow

        kind = self.data.schema.field(column).type
        kind = kind if pyarrow.types.is_integer(kind) else getattr(kind, "value_type", kind)
        try:
            feature = json.loads((self.data.schema.metadata or {})[b"huggingface"])["info"]["features"][column]
            feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
            names = feature["names"] if feature["_type"] == "ClassLabel" else None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        is_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return names if is_names and pyarrow.types.is_integer(kind) else None

    def to_dataset(self) -> Dataset:
        """Return the rows for the library datasets, without columns that it does not take: maps, say.

        A task has checked the types of its own columns before. Raises UserError if no column is left.
        """
        try:
            return _dataset(self.data)
        except UserError as error:
            plain = self.data.replace_schema_metadata(None)  # they may say anything about the types
            taken = [name for name in plain.column_names if _is_taken(plain.select([name]))]
            if not taken:
                raise UserError(f"{self.path}: {error}") from error
            return _dataset(plain.select(taken))


def column_array(values: list[Any]) -> pyarrow.Array:
    """Return the values of a column as an Arrow array; whole numbers beside others become texts, as the file has them.

    Arrow would make ``1`` to ``1.0``, which is another label. The same holds for lists of numbers.
    Raises an error of Arrow, or OverflowError, for values that are not of one type.
    """
    import pyarrow

    items = [item for value in values if isinstance(value, list) for item in value]
    if _mixes_numbers(values):
        values = [_as_written(value) for value in values]
    elif _mixes_numbers(items):
        values = [[_as_written(item) for item in value] if isinstance(value, list) else value for value in values]
    return pyarrow.array(values, from_pandas=True)


def _mixes_numbers(values: list[Any]) -> bool:
    return {int, float} == {type(value) for value in values if value is not None and value == value}


def _as_written(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) and value == value else value


def _dataset(data: pyarrow.Table) -> Dataset:
    """Return a table for the library datasets. Raises UserError for columns that it does not take."""
    import pyarrow
    from datasets import Dataset

    try:
        return Dataset(data)
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
            f"the library datasets takes no such columns ({first_line(error)}). Write them as texts, numbers, or lists "
            "of them."
        ) from error


def _is_taken(column: pyarrow.Table) -> bool:
    try:
        _dataset(column.slice(0, 0))
    except UserError:
        return False
    return True


def place_of(rows: Table | Dataset, source: str, row: int, part: int = 0) -> str:
    """Return where a row is: its line in a file, or its number in ``source``."""
    return rows.place(row, part) if isinstance(rows, Table) else f"{source}, row {row}"


def number_of(rows: Table | Dataset, row: int) -> str:
    """Return the line of a row in its file, or its number."""
    return rows.number(row) if isinstance(rows, Table) else f"row {row}"


def with_values(rows: Table | Dataset, column: str, values: list[Any]) -> Table | Dataset:
    """Return the rows with other values in a column."""
    if isinstance(rows, Table):
        # What the metadata say about the types of columns holds no longer.
        rows = rows.with_data(rows.data.replace_schema_metadata(None))
        return rows.remove_columns(column).add_column(column, values)
    return rows.remove_columns(column).add_column(column, values)


def to_dataset(rows: Table | Dataset) -> Dataset:
    """Return rows of a file, or of another source, as a Dataset."""
    return rows.to_dataset() if isinstance(rows, Table) else rows


def concatenate(parts: Sequence[Table | Dataset]) -> Table | Dataset:
    """Return the rows of all parts, one after the other."""
    import pyarrow

    tables = [part for part in parts if isinstance(part, Table)]
    if len(tables) == len(parts):
        data = pyarrow.concat_tables([table.data for table in tables], promote_options="default")
        return Table(data, tables[0].path)
    from datasets import concatenate_datasets

    return concatenate_datasets([to_dataset(part) for part in parts])
