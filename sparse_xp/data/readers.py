"""Read the rows of a user's file: JSON, JSON lines, CSV, TSV, parquet or CoNLL text.

Whatever a file contains, the result is its rows or one UserError that names the file and the line. The formats are in
``json_rows``, ``csv_rows``, ``conll_rows`` and ``parquet``; to add one, write a function and add it to ``READERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.data.conll_rows import read_conll
from sparse_xp.data.csv_rows import csv_reader
from sparse_xp.data.json_rows import read_json, read_json_lines
from sparse_xp.data.limits import DEFAULT_LIMITS, Limits
from sparse_xp.data.parquet import explain_arrow_errors, read_table
from sparse_xp.data.table import Table
from sparse_xp.data.text_files import NumberedRecord, read_text
from sparse_xp.errors import UserError, first_line
from sparse_xp.files.reading import check_file
from sparse_xp.files.text_format import RECOGNISED, TextFormat

if TYPE_CHECKING:
    from datasets import Dataset


def read_file(path: Path, limits: Limits = DEFAULT_LIMITS, text_format: TextFormat = RECOGNISED) -> Dataset:
    """Return the rows of ``path`` for the library datasets. Raises UserError as ``read_rows`` does."""
    return read_rows(path, limits, text_format).to_dataset()


def read_rows(path: Path, limits: Limits = DEFAULT_LIMITS, text_format: TextFormat = RECOGNISED) -> Table:
    """Return the rows of ``path``; its suffix decides the format. Raises UserError, with the line, for damage."""
    import pyarrow

    if path.suffix.lower() == ".parquet":
        check_text_format(path, text_format)
        return Table(read_table(path, limits), path)
    numbered = _numbered(path, limits, True, text_format)
    records = [record for _, record in numbered]
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    try:
        table = pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()})
        return Table(table, path, [lines for lines, _ in numbered])
    except (pyarrow.ArrowException, OverflowError) as error:
        raise UserError(
            f"{path}: {_odd_value(columns, [lines for lines, _ in numbered])}({first_line(error)})."
        ) from error


def read_records(
    path: Path, limits: Limits = DEFAULT_LIMITS, arrow: bool = False, text_format: TextFormat = RECOGNISED
) -> list[Any]:
    """Return the rows of ``path`` as plain objects, without the library datasets.

    ``arrow``: raise an error for rows that Arrow cannot hold. Otherwise one bad row does not affect the others: a line
    that is not a row is a UserError in the list.
    """
    return [record for _, record in _numbered(path, limits, arrow, text_format)]


def _numbered(path: Path, limits: Limits, arrow: bool, text_format: TextFormat) -> list[NumberedRecord]:
    """Return the rows of ``path`` as ``read_records`` does, each with the lines where it begins."""
    check_file(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UserError(f"{path}: unknown format '{suffix}', expected one of {' '.join(READERS)}.")
    check_text_format(path, text_format)
    if suffix == ".parquet":
        table = read_table(path, limits)
        with explain_arrow_errors(path):
            records: list[NumberedRecord] = [([], row) for row in table.to_pylist()]
    else:
        text = read_text(path, limits, text_format)
        records = READERS[suffix](path, text, arrow, text_format) if text.strip() else []
        limits.check(path, len(records), 0)
    if not records:
        raise UserError(f"{path} has no rows.")
    if all(isinstance(record, UserError) for _, record in records):
        raise records[0][1]
    return records


def options_of(path: Path) -> tuple[str, ...]:
    """Return the options of ``TextFormat`` that mean something for the format of this file."""
    return OPTIONS.get(path.suffix.lower(), ("encoding",))


def check_text_format(path: Path, text_format: TextFormat) -> None:
    """Raise UserError for an option that means nothing for the format of this file."""
    for name, value in text_format.given.items():
        if name not in options_of(path):
            raise UserError(
                f"{text_format.prefix}{name}={value!r} means nothing for {path}: files of this format have none to "
                "choose. Leave it out."
            )
        if name == "separator" and READERS[path.suffix.lower()] is read_conll and value not in ("\t", " "):
            raise UserError(f"{text_format.prefix}separator={value!r}: CoNLL text, as {path}, has tab or space.")


def _odd_value(columns: dict[str, list[Any]], lines: list[list[int]]) -> str:
    """Which column, and the first row of it, is of another type than the rows above; ``lines``: those of each row."""
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
        place = f"line {lines[bad - 1][0]}" if lines[bad - 1] else f"row {bad - 1}"
        return f"column '{name}' is not of one type in all rows: {place} is of another than those above it "
    return "a column is not of one type in all rows "


#: the reader of each format: of a path, its text, ``arrow`` as in ``read_records``, and how the text is written
READERS: dict[str, Callable[[Path, str, bool, TextFormat], list[NumberedRecord]]] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": csv_reader(","),
    ".tsv": csv_reader("\t"),
    ".conll": read_conll,
    ".bio": read_conll,
    ".iob": read_conll,
    ".txt": read_conll,
    ".parquet": lambda path, text, arrow, text_format: [],  # read from its bytes
}
#: the options of ``TextFormat`` that mean something for a format; for the others the encoding alone
OPTIONS: dict[str, tuple[str, ...]] = {
    ".csv": ("separator", "quoting", "encoding"),
    ".tsv": ("separator", "quoting", "encoding"),
    **dict.fromkeys((".conll", ".bio", ".iob", ".txt"), ("separator", "encoding")),
    ".parquet": (),
}
