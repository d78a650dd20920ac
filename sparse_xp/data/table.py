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
    file where its parts begin (of a sentence its words); None for a format without lines.
    """

    def __init__(self, data: pyarrow.Table, path: Path, lines: list[list[int]] | None = None):
        self.data = data
        self.path = path
        self.lines = lines

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
        numbers = self.lines[row] if self.lines else []
        return f"{self.path}, line {numbers[min(part, len(numbers) - 1)]}" if numbers else f"{self.path}, row {row}"

    def select(self, indices: Iterable[int]) -> Table:
        """Return the rows of these numbers, which must ascend."""
        import numpy as np
        import pyarrow

        # A mask goes through the chunks one by one; ``take`` joins them, and more than 2 GB of texts do not fit one.
        chosen = np.zeros(len(self), bool)
        chosen[list(indices)] = True
        lines = [numbers for numbers, kept in zip(self.lines, chosen, strict=True) if kept] if self.lines else None
        return Table(self.data.filter(pyarrow.array(chosen)), self.path, lines)

    def add_column(self, name: str, values: list[Any] | pyarrow.Array) -> Table:
        """Return the rows with one more column. ``values``: a list, or an Arrow array."""
        import pyarrow

        column = values if isinstance(values, (pyarrow.Array, pyarrow.ChunkedArray)) else pyarrow.array(values)
        return Table(self.data.append_column(name, column), self.path, self.lines)

    def remove_columns(self, name: str) -> Table:
        """Return the rows without this column."""
        return Table(self.data.drop_columns([name]), self.path, self.lines)

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
        """Return the rows for the library datasets. Raises UserError for columns that it does not take."""
        import pyarrow
        from datasets import Dataset

        try:
            return Dataset(self.data)
        except (
            pyarrow.ArrowException,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            NotImplementedError,
            RecursionError,
        ) as error:  # the metadata may say anything about the types
            raise UserError(
                f"{self.path}: the library datasets takes no such columns ({first_line(error)}). Write them as texts, "
                "numbers, or lists of them."
            ) from error


def place_of(rows: Table | Dataset, source: str, row: int, part: int = 0) -> str:
    """Return where a row is: its line in a file, or its number in ``source``."""
    return rows.place(row, part) if isinstance(rows, Table) else f"{source}, row {row}"


def with_values(rows: Table | Dataset, column: str, values: list[Any]) -> Table | Dataset:
    """Return the rows with other values in a column."""
    if isinstance(rows, Table):
        # What the metadata say about the types of columns holds no longer.
        rows = Table(rows.data.replace_schema_metadata(None), rows.path, rows.lines)
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
