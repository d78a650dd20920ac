"""Read the rows of a user's file: JSON, JSON lines, CSV, TSV, parquet or CoNLL text.

Whatever a file contains, the result is its rows or one UserError that names the file and the line. The formats are in
``json_rows``, ``text_rows`` and ``parquet``; to add one, write a function and add it to ``READERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.data.json_rows import read_json, read_json_lines
from sparse_xp.data.limits import DEFAULT_LIMITS, Limits
from sparse_xp.data.parquet import explain_arrow_errors, read_table
from sparse_xp.data.text_files import Record, read_text
from sparse_xp.data.text_rows import read_conll, separated_reader
from sparse_xp.errors import UserError, first_line
from sparse_xp.files.reading import check_file

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset


def read_file(path: Path, limits: Limits = DEFAULT_LIMITS) -> Dataset:
    """Return the rows of ``path``; its suffix decides the format. Raises UserError, with the line, for damage."""
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
    """Return the rows of a table, whose metadata may say anything about types of the library datasets."""
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


def read_records(path: Path, limits: Limits = DEFAULT_LIMITS, arrow: bool = False) -> list[Any]:
    """Return the rows of ``path`` as plain objects, without the library datasets.

    ``arrow``: raise an error for rows that Arrow cannot hold. Otherwise one bad row does not affect the others: a line
    that is not a row is a UserError in the list.
    """
    check_file(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UserError(f"{path}: unknown format '{suffix}', expected one of {' '.join(READERS)}.")
    if suffix == ".parquet":
        table = read_table(path, limits)
        with explain_arrow_errors(path):
            records: list[Any] = table.to_pylist()
    else:
        text = read_text(path, limits)
        records = READERS[suffix](path, text, arrow) if text.strip() else []
        limits.check(path, len(records), 0)
    if not records:
        raise UserError(f"{path} has no rows.")
    if all(isinstance(record, UserError) for record in records):
        raise records[0]
    return records


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


READERS: dict[str, Callable[[Path, str, bool], list[Record]]] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": separated_reader(","),
    ".tsv": separated_reader("\t"),
    ".conll": read_conll,
    ".bio": read_conll,
    ".iob": read_conll,
    ".txt": read_conll,
    ".parquet": lambda path, text, arrow: [],  # read from its bytes
}
