"""Rows without labels, ``data.unlabeled``: a file of the texts that a task reads, which a teacher alone answers."""

from __future__ import annotations

from pathlib import Path

from sparse_xp.data.corpus import files_fingerprint
from sparse_xp.data.limits import Limits
from sparse_xp.data.readers import naming_of_columns, options_of, read_rows
from sparse_xp.data.table import Table
from sparse_xp.data.text_lines import read_text_lines
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files.text_format import TextFormat
from sparse_xp.settings import Data
from sparse_xp.tasks.base import Task


def read_unlabeled(task: Task, path: Path, data: Data) -> Table:
    """Return the texts of a file under the names of the task's columns, without its other columns.

    Raises UserError for a file that is missing, damaged or of a format without such texts.
    """
    names, limits = task.text_names(), Limits.of(data.max_rows, data.max_gigabytes)
    text_format = unlabeled_format(path, data)
    if path.is_dir():
        raise UserError(f"data.unlabeled={path} is a directory: expected a file.")
    if path.suffix.lower() != ".txt":
        used = [name for alternatives in names for name in alternatives]
        rows = read_rows(path, limits, text_format, used)
        check_names(task, rows)
        return task.inputs_of(rows)
    if len(names) > 1:
        columns = " and ".join(alternatives[0] for alternatives in names)
        raise UserError(
            f"data.unlabeled={path}: a .txt file has one text a line, and task {task.name} reads {columns}. Give JSON "
            "lines, CSV, TSV or parquet with these columns."
        )
    rows = task.inputs_of(read_text_lines(path, names[0][-1], limits, text_format))
    if not len(rows):
        raise UserError(f"{path} has no rows.")
    return rows


def check_names(task: Task, rows: Table) -> None:
    """Raise UserError unless the rows have a column for each text of the task."""
    for names in task.text_names():
        if not set(names) & set(rows.column_names):
            known = " or ".join(f"'{name}'" for name in dict.fromkeys(names))
            raise UserError(
                f"data.unlabeled={rows.path}: task {task.name} reads a column {known}, and the file has "
                f"{', '.join(rows.column_names)}.{did_you_mean(names[0], rows.column_names)} Call the column so."
                f"{naming_of_columns(rows.path, rows.column_names)}"
            )


def unlabeled_format(path: Path, data: Data) -> TextFormat:
    """Return how the file is to be read, without options that mean something for the files with labels only."""
    own = {"encoding"} if path.suffix.lower() == ".txt" else set(options_of(path))
    elsewhere = {name for file in (data.train, data.validation) if file for name in options_of(Path(file))}
    return data.text_format.without(elsewhere - own)


def describe_unlabeled(path: Path, data: Data) -> str:
    """Return a description of the rows that changes whenever they may have changed."""
    told = "".join(f" {name}={value!r}" for name, value in unlabeled_format(path, data).given.items())
    return f"{path.name} {files_fingerprint(path)}{told}"
