"""Read the rows of a user's file: JSON, JSON lines, CSV, TSV, parquet or CoNLL text.

Whatever a file contains, the result is its rows or one UserError that names the file and the line. The formats are in
``json_rows``, ``csv_rows``, ``conll_rows`` and ``parquet``; the tables at the end say which endings are of which.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.data.conll_rows import TAGGED, read_conll
from sparse_xp.data.csv_rows import csv_reader
from sparse_xp.data.foreign_files import check_start_of, unknown_format
from sparse_xp.data.json_rows import read_json, read_json_lines
from sparse_xp.data.limits import DEFAULT_LIMITS, Limits
from sparse_xp.data.parquet import explain_arrow_errors, read_table
from sparse_xp.data.table import Table, column_array
from sparse_xp.data.text_files import NumberedRecord, read_text
from sparse_xp.errors import UserError, first_line
from sparse_xp.files.reading import check_file
from sparse_xp.files.text_format import RECOGNISED, TextFormat

if TYPE_CHECKING:
    from datasets import Dataset


def read_file(path: Path, limits: Limits = DEFAULT_LIMITS, text_format: TextFormat = RECOGNISED) -> Dataset:
    """Return the rows of ``path`` for the library datasets. Raises UserError as ``read_rows`` does."""
    return read_rows(path, limits, text_format).to_dataset()


def read_rows(
    path: Path,
    limits: Limits = DEFAULT_LIMITS,
    text_format: TextFormat = RECOGNISED,
    used: Collection[str] | None = None,
) -> Table:
    """Return the rows of ``path``; its suffix decides the format. Raises UserError, with the line, for damage.

    ``used``: the columns that are read, None for all. Others are left out if their values are not of one type, or if
    several have the same name.
    """
    if path.suffix.lower() == ".parquet":
        check_text_format(path, text_format)
        check_file(path)
        check_start_of(path)
        return Table(read_table(path, limits), path)
    numbered = _numbered(path, limits, True, text_format, used)
    return records_to_table([record for _, record in numbered], path, [lines for lines, _ in numbered], used)


def records_to_table(
    records: Sequence[Mapping[str, Any]], path: Path, lines: list[list[int]], used: Collection[str] | None = None
) -> Table:
    """Return rows as a table. ``path``: where they come from; ``lines``: of ``Table``; ``used``: as in ``read_rows``.

    Raises UserError for a column of ``used`` whose values are not of one type.
    """
    import pyarrow

    names = dict.fromkeys(name for record in records for name in record)
    columns: dict[str, pyarrow.Array] = {}
    for name in names:
        values = [record.get(name) for record in records]
        try:
            columns[name] = column_array(values)
        except (pyarrow.ArrowException, OverflowError) as error:
            if used is None or name in used:
                raise UserError(f"{path}: {_odd_value(name, values, lines)} ({first_line(error)}).{SAME}") from error
    if not columns:
        raise UserError(f"{path}: none of its columns, {', '.join(names)}, is of one type in all rows.{SAME}")
    return Table(pyarrow.table(columns), path, lines)


def read_records(
    path: Path,
    limits: Limits = DEFAULT_LIMITS,
    arrow: bool = False,
    text_format: TextFormat = RECOGNISED,
    used: Collection[str] | None = None,
) -> list[Any]:
    """Return the rows of ``path`` as plain objects, without the library datasets.

    ``arrow``: raise an error for rows that Arrow cannot hold. Otherwise one bad row does not affect the others: a line
    that is not a row is a UserError in the list. ``used``: as in ``read_rows``.
    """
    return [record for _, record in _numbered(path, limits, arrow, text_format, used)]


def _numbered(
    path: Path, limits: Limits, arrow: bool, text_format: TextFormat, used: Collection[str] | None
) -> list[NumberedRecord]:
    """Return the rows of ``path`` as ``read_records`` does, each with the lines where it begins."""
    check_file(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise unknown_format(path, list(FORMATS))
    check_text_format(path, text_format)
    if suffix == ".parquet":
        check_start_of(path)
        table = read_table(path, limits)
        with explain_arrow_errors(path):
            records: list[NumberedRecord] = [([], row) for row in table.to_pylist()]
    else:
        text = read_text(path, limits, text_format, line_ends=suffix in SEPARATED)
        if not text.strip():
            records = []
        elif suffix in SEPARATED:
            records = SEPARATED[suffix](path, text, text_format, used)
        elif suffix in CONLL:
            records = read_conll(path, text, text_format)
        else:
            records = JSON[suffix](path, text, arrow, used)
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
        if name == "separator" and path.suffix.lower() in CONLL and value not in ("\t", " "):
            raise UserError(f"{text_format.prefix}separator={value!r}: CoNLL text, as {path}, has tab or space.")


#: advice about a column of values of several types
SAME = " Write all its values as texts, or all as numbers, or all as lists of one kind."


def _odd_value(name: str, values: list[Any], lines: list[list[int]]) -> str:
    """Say which row is the first in which a column is of another type than above; ``lines``: those of each row."""
    import pyarrow

    good, bad = 0, len(values)  # so many rows fit together, so many do not
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            pyarrow.array(values[:middle], from_pandas=True)
            good = middle
        except (pyarrow.ArrowException, OverflowError):
            bad = middle
    place = f"line {lines[bad - 1][0]}" if lines[bad - 1] else f"row {bad - 1}"
    return f"column '{name}' is not of one type in all rows: {place} is of another than those above it"


def naming_of_columns(path: Path, names: list[str]) -> str:
    """Return where the names of the columns of a text file come from, as sentences after a blank; else nothing."""
    suffix = path.suffix.lower()
    if suffix in CONLL:
        return f" A file {suffix} is read as CoNLL text, words with tags; name it .csv or .tsv if it has columns."
    if suffix not in SEPARATED:
        return ""
    if len(names) > 1 and TAGGED.fullmatch(names[-1]):
        return " This looks like CoNLL text, words with tags; name it .conll."
    return " The names are those of its first line; write a line with the names of the columns if it has none."


#: the readers of JSON: of a path, its text, ``arrow`` as in ``read_records``, and ``used`` as in ``read_rows``
JSON: dict[str, Callable[[Path, str, bool, Collection[str] | None], list[NumberedRecord]]] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
}
#: the readers of separated columns: of a path, its text, how it is written, and ``used`` as in ``read_rows``
SEPARATED = {".csv": csv_reader(","), ".tsv": csv_reader("\t")}
#: endings of CoNLL text
CONLL = (".conll", ".bio", ".iob", ".txt")
#: endings of all formats
FORMATS = (*JSON, *SEPARATED, *CONLL, ".parquet")
#: the options of ``TextFormat`` that mean something for a format; for the others the encoding alone
OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(SEPARATED, ("separator", "quoting", "encoding")),
    **dict.fromkeys(CONLL, ("separator", "encoding")),
    ".parquet": (),
}
