"""Write rows to Arrow files in the cache, and map them into memory."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.cache import ensure_cached
from sparse_xp.console import progress_counter
from sparse_xp.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

#: rows that are written together
BATCH = 1000


def read_arrow(directory: Path, fingerprint: str | None = None) -> Dataset:
    """Return the rows of the Arrow files in a directory, in the order of their names, mapped into memory."""
    from datasets import Dataset
    from datasets.table import MemoryMappedTable, concat_tables

    tables = [MemoryMappedTable.from_file(str(path)) for path in sorted(directory.glob("*.arrow"))]
    return Dataset(concat_tables(tables), fingerprint=fingerprint)


def cache_stream(stream: IterableDataset, rows: int, seed: int, path: Path) -> Dataset:
    """Return the first ``rows`` of a shuffled stream, written to the cache entry ``path`` once.

    Shards are shuffled, and rows within pools of 10,000.
    """
    shuffled = stream.shuffle(seed=seed, buffer_size=10_000)
    return write_rows(islice(shuffled, rows), path, path.stem, stream.features)


def write_rows(rows: Iterable[dict[str, Any]], path: Path, what: str, features: Any = None) -> Dataset:
    """Return ``rows``, written to the cache entry ``path`` unless it exists, and mapped into memory.

    ``what``: the name of their source, for messages. ``features``: their types, None to infer them.
    """

    def make(draft: Path) -> None:
        source = iter(rows)
        first = next(source, None)  # before the import, which takes longer than finding an error here
        if first is None:
            raise UserError(f"{what} has no rows.")
        from datasets.arrow_writer import ArrowWriter

        with ArrowWriter(path=str(draft / "rows.arrow"), features=features, writer_batch_size=BATCH) as writer:
            for row in progress_counter(chain([first], source), f"read {what}"):
                writer.write(row)
            writer.finalize()

    ensure_cached(path, make)
    return read_arrow(path)
