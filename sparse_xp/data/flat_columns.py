"""Columns of features as flat arrays: views of Arrow's memory, without Python lists.

Features are a memory-mapped Arrow file. A view reads from the disk what a batch needs, so that a corpus may be larger
than the memory. ``collate`` (``batches.py``) makes the tensors of a batch out of these views.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

#: the type of a batch for each kind of number
DTYPES: dict[str, Any] = {"i": np.int64, "u": np.int64, "f": np.float32}


@dataclass(frozen=True)
class FlatColumn:
    """A column of a data set, in the chunks of its Arrow table.

    ``values``: for each chunk the values of all its rows, one after another. ``offsets``: for each chunk where its rows
    begin in the values, and where the last one ends; None for a column with one value per row. ``starts``: the number
    of the first row of each chunk, and at the end the number of rows. ``indices``: the row of the table for each row of
    a data set that was shuffled or selected from, None for all rows in order.
    """

    values: list[np.ndarray]
    offsets: list[np.ndarray] | None
    starts: np.ndarray
    indices: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.starts[-1]) if self.indices is None else len(self.indices)

    def locate(self, rows: Sequence[int]) -> Iterable[tuple[int, int]]:
        """Return for each row the number of its chunk, and its place in the chunk."""
        numbers = np.asarray(rows) if self.indices is None else self.indices[rows]
        chunks = self.starts.searchsorted(numbers, "right") - 1
        return zip(chunks.tolist(), (numbers - self.starts[chunks]).tolist(), strict=True)

    def padded(self, rows: Sequence[int], fill: int = 0) -> np.ndarray:
        """Return the values of ``rows``, int64 or float32: [rows], or [rows, longest] with ``fill`` on the right."""
        kind = DTYPES.get(self.values[0].dtype.kind, self.values[0].dtype)
        if self.offsets is None:
            return np.array([self.values[chunk][place] for chunk, place in self.locate(rows)], kind)
        picked = []
        for chunk, place in self.locate(rows):
            offsets = self.offsets[chunk]
            picked.append(self.values[chunk][offsets[place] : offsets[place + 1]])
        padded = np.full((len(picked), max(map(len, picked)), *self.values[0].shape[1:]), fill, kind)
        for line, values in zip(padded, picked, strict=True):
            line[: len(values)] = values
        return padded

    def lengths(self) -> np.ndarray:
        """Return the number of values of each row."""
        assert self.offsets is not None
        lengths = np.concatenate([np.zeros(0, np.int64), *map(np.diff, self.offsets)])
        return lengths if self.indices is None else lengths[self.indices]


def flat_columns(features: Dataset, names: Iterable[str]) -> dict[str, FlatColumn]:
    """Return the columns ``names`` of features as flat arrays. Numbers are not copied, and not read from the disk yet.

    A column holds numbers, lists of numbers, or lists of lists of one length. Raises ValueError for others.
    """
    indices = None
    if features._indices is not None:
        indices = features._indices.column(0).to_numpy().astype(np.int64)
    return {name: flat_column(features.data.column(name), indices) for name in names}


def flat_column(column: pyarrow.ChunkedArray, indices: np.ndarray | None = None) -> FlatColumn:
    """Return a column of an Arrow table as flat arrays. ``indices``: as in ``FlatColumn``."""
    import pyarrow

    if column.null_count:
        raise ValueError(f"{column.null_count} rows have no value")
    if pyarrow.types.is_fixed_size_list(column.type):
        column = column.cast(pyarrow.list_(column.type.value_type))
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    starts = np.cumsum([0, *map(len, chunks)])
    if not is_list(column.type):
        return FlatColumn([flat_values(chunk) for chunk in chunks], None, starts, indices)
    offsets = [chunk.offsets.to_numpy() for chunk in chunks]
    return FlatColumn([flat_values(chunk.values) for chunk in chunks], offsets, starts, indices)


def flat_values(array: pyarrow.Array) -> np.ndarray:
    """Return the numbers of an Arrow array [values], or of its lists of one length [values, length]."""
    import pyarrow.compute

    if is_list(array.type):
        lengths = pyarrow.compute.list_value_length(array).unique().to_pylist()
        if len(lengths) > 1:
            raise ValueError(f"lists of {min(lengths)} to {max(lengths)} values within a list make no tensor")
        inner = flat_values(array.flatten())
        return inner.reshape(len(array), *(lengths or [0]), *inner.shape[1:])
    # Arrow packs bools into bits, so that numpy needs a copy of them.
    numbers: np.ndarray = array.to_numpy(zero_copy_only=not pyarrow.types.is_boolean(array.type))
    return numbers


def is_list(kind: pyarrow.DataType) -> bool:
    """Return whether values of an Arrow type are lists."""
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
