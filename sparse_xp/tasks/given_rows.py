"""The rows that a program gives: a list, a ``datasets.Dataset``, a file, a mirror; or none, and those of the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path

from sparse_xp.data.hub import go_offline_if_unreachable
from sparse_xp.data.readers import records_to_table
from sparse_xp.data.table import Table
from sparse_xp.errors import UserError
from sparse_xp.settings import Data
from sparse_xp.tasks.base import Task
from sparse_xp.tasks.labels import class_names
from sparse_xp.tasks.rows import LoadedSplit, evaluation_rows, load_rows


def load_given_rows(task: Task, rows: object, data: Data) -> LoadedSplit:
    """Return the evaluation rows, checked; ``rows``: as of ``sparse_xp.export``. Raises UserError for anything else."""
    from datasets import Dataset, DatasetDict

    if rows is None:
        if not task.dataset:
            raise UserError(f"rows= is missing: task {task.name} has no data set on the hub to score the model on.")
        go_offline_if_unreachable()
        return load_rows(task, data, train=False)
    if isinstance(rows, str | Path):
        path = str(rows)
        if Path(path).is_dir():
            return load_rows(task, replace(data, root=path), train=False)
        # One file is one split, whatever splits the data set of the task has.
        task = replace(task, eval_split=task.eval_split.partition("+")[0])
        return load_rows(task, replace(data, train=path, validation=path), train=False)
    if isinstance(rows, DatasetDict):
        raise UserError(f"rows: a dictionary of splits, {', '.join(rows)}. Give one of them: rows=dataset[NAME].")
    if isinstance(rows, Dataset):
        check_not_empty(task, rows)
        arrow = rows.with_format("arrow")[:].replace_schema_metadata(rows.features.arrow_schema.metadata)
        return evaluation_rows(task, Table(arrow, Path("rows")), "rows")
    return evaluation_rows(task, rows_to_table(task, rows), "rows")


def rows_to_table(task: Task, rows: object) -> Table:
    """Return a list of rows as a table. Raises UserError for anything else, and for columns of mixed types."""
    if not isinstance(rows, Sequence) or isinstance(rows, bytes):
        raise UserError(
            "rows: expected a list of dictionaries, a datasets.Dataset, or the path of a file or of a mirror, not "
            f"{type(rows).__name__}."
        )
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or not all(isinstance(name, str) for name in row):
            raise UserError(f"rows, row {number}: expected a dictionary with the columns of the task by name.")
    check_not_empty(task, rows)
    used = [*task.columns(), *task.optional_columns()]
    return records_to_table(rows, Path("rows"), [[] for _ in rows], used)


def check_not_empty(task: Task, rows: Sized) -> None:
    """Raise UserError if there are no rows."""
    if not len(rows):
        raise UserError(f"task {task.name}: rows is empty.")


def load_named_rows(task: Task, rows: object, data: Data) -> LoadedSplit | None:
    """Return the rows if their column of labels names its classes in order (``ClassLabel``), else None."""
    try:
        loaded = load_given_rows(task, rows, data)
    except UserError:
        return None
    return loaded if any(class_names(loaded.rows, column) for column in task.columns()) else None
