"""The rows of a task's splits: read from their source, checked, split, cleaned and cut to a subset.

``run.load_data`` calls ``load_splits`` before torch is loaded; ``features.py`` tokenizes what it returns.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.data.readers import SEPARATED, naming_of_columns
from sparse_xp.data.table import Table, concatenate, place_of
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files.checksums import json_digest
from sparse_xp.settings import Data
from sparse_xp.tasks import Task
from sparse_xp.tasks.holdout import held_out, permutation
from sparse_xp.tasks.query_groups import whole_queries
from sparse_xp.tasks.sources import read_source, split_files
from sparse_xp.tasks.unlabeled_rows import describe_unlabeled, read_unlabeled

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class LoadedSplit:
    """Rows to train or evaluate on.

    ``task``: the task with labels: its own, else those of the rows before any were held out.
    ``fingerprint``: a digest of where they come from. ``total``: how many there were before a subset was taken.
    ``warnings``: what a person should know about them. ``in_files``: how many rows each file has.
    """

    task: Task
    rows: Table | Dataset
    fingerprint: str
    total: int
    warnings: list[str]
    in_files: dict[str, int]


@dataclass
class Splits:
    """The rows of a run. ``task``: the task with the labels of the training rows. ``unlabeled``: of a file without."""

    task: Task
    train: LoadedSplit
    evaluation: LoadedSplit
    unlabeled: LoadedSplit | None = None

    @property
    def in_files(self) -> dict[str, int]:
        """The number of rows in each file that they come from."""
        return self.train.in_files | self.evaluation.in_files | (self.unlabeled.in_files if self.unlabeled else {})


def load_splits(task: Task, data: Data) -> Splits:
    """Return all rows of a run, checked. Rows of a file are read without torch and datasets, so its errors come early.

    Labels come from the training rows; the evaluation rows are compared with them.
    """
    train = load_rows(task, data, train=True)
    evaluation = load_rows(task, data, train=False, labelled=train.task)
    return Splits(train.task, train, evaluation, load_unlabeled(train.task, data))


def load_unlabeled(task: Task, data: Data) -> LoadedSplit | None:
    """Return the rows of ``data.unlabeled``, the texts alone, checked as those of a file with labels; None without one.

    Raises UserError for a file that cannot be read, and for missing columns or texts.
    """
    if data.unlabeled is None:
        return None
    path = Path(data.unlabeled)
    rows: Table | Dataset = read_unlabeled(task, path, data)
    check_column_types(task, rows, str(path))
    rows, remarks = task.normalize(rows, str(path), True, False)
    check_columns(task, rows, str(path), [names[0] for names in task.text_names()])
    return LoadedSplit(task, rows, describe_unlabeled(path, data), len(rows), remarks, {str(path): len(rows)})


def load_rows(task: Task, data: Data, train: bool, labelled: Task | None = None) -> LoadedSplit:
    """Return the rows of the train or the evaluation split.

    Several splits (``a+b``) follow each other, and a column ``split`` names the split of each row. If there is no split
    for evaluation, a seeded share of the training rows is held out. ``labelled``: the task with the labels of the
    training rows, where they are known.
    Raises UserError for a missing file, an unreachable hub, missing columns or values, or no rows.
    """
    names = (task.train_split if train else task.eval_split).split("+")
    parts: list[_SourceRows] = []
    for name in names:
        labelled = parts[0].task if parts else labelled
        parts.append(_load_split(task, data, name, train, labelled))
    total, warnings = sum(part.total for part in parts), [warning for part in parts for warning in part.warnings]
    fingerprint = json_digest([(part.source, len(part.rows)) for part in parts])
    files = map(str, split_files(task, data, train))
    in_files = dict(zip(files, (part.read for part in parts), strict=False))
    if len(parts) == 1:
        return LoadedSplit(parts[0].task, parts[0].rows, fingerprint, total, warnings, in_files)
    named = [part.rows.add_column("split", [name] * len(part.rows)) for name, part in zip(names, parts, strict=True)]
    return LoadedSplit(parts[0].task, concatenate(named), fingerprint, total, warnings, in_files)


@dataclass
class _SourceRows:
    """The rows of one split of a source; ``source`` describes it, the other fields are as in ``LoadedSplit``.

    ``task``: the task with the labels of the rows, or those that were known already.
    ``read``: the number of rows in the source, before any were held out or left out.
    """

    task: Task
    rows: Table | Dataset
    source: str
    read: int
    total: int
    warnings: list[str]


def _load_split(task: Task, data: Data, split: str, train: bool, labelled: Task | None) -> _SourceRows:
    """Return the rows of one split: read, checked, cleaned, without those held out, cut to a subset.

    ``labelled``: the task with labels that are known already.
    """
    rows, place, source = read_source(task, data, split, train)
    read = len(rows)
    # All rows of the file name the classes, those that are held out, too.
    labelled, rows, remarks = _checked(task, rows, place, data.source == "files", labelled)
    if shares_split(task, data):
        rows, side = _side_of_split(task, rows, place, train)
        # The fingerprint of the rows, and with it the cache of features, depends on this text.
        source = f"{source} {side}"
    if task.query_column:
        source = f"{source}, whole queries by {task.query_column}"
    rows, total, warnings = _usable(task, rows, place, train)
    if shares_split(task, data) and not train:
        remarks = []  # said of the training rows
    return _SourceRows(labelled, rows, source, read, total, remarks + warnings)


def evaluation_rows(task: Task, rows: Table | Dataset, place: str) -> LoadedSplit:
    """Return evaluation rows that are in memory already, checked as those of a file are.

    ``place``: what messages call them. Raises UserError as ``load_rows`` does.
    """
    labelled, checked, remarks = _checked(task, rows, place, True, None)
    usable, total, warnings = _usable(task, checked, place, train=False)
    return LoadedSplit(labelled, usable, place, total, remarks + warnings, {})


def _checked(
    task: Task, rows: Table | Dataset, place: str, strict: bool, labelled: Task | None
) -> tuple[Task, Table | Dataset, list[str]]:
    """Return the task with labels, the rows with the values that its kind takes, and remarks on what was converted.

    ``strict``: the rows are the user's own. ``labelled``: as of ``_load_split``.
    """
    if not len(rows):
        raise UserError(f"task {task.name}: {place} has no rows.")
    check_column_types(task, rows, place)
    unsaid = _words_for_nothing(task, rows)
    rows, remarks = (labelled or task).normalize(rows, place, strict, bool(task.label_names))
    task.check_rows(rows, place)
    rows = task.add_missing_columns(rows)
    check_columns(task, rows, place)
    try:
        labelled = labelled or task.with_labels_from(rows)
        labelled.check_labels(rows)
    except UserError as error:
        raise UserError(f"{rows.path if isinstance(rows, Table) else place}: {error}") from error
    return labelled, rows, unsaid + remarks


def _usable(task: Task, rows: Table | Dataset, place: str, train: bool) -> tuple[Table | Dataset, int, list[str]]:
    """Return a subset of the usable rows, as large as the task says, their number before, and warnings."""
    rows, warnings = task.clean(rows, train)
    if not len(rows):
        raise UserError(f"task {task.name}: {place} has no rows that can be used. {' '.join(warnings)}")
    total = len(rows)
    limit = task.max_train_samples if train else task.max_eval_samples
    if limit is not None and limit < total:
        keys = list(rows[task.query_column]) if task.query_column and not train else None
        rows = rows.select(whole_queries(keys, limit) if keys else sorted(permutation(total)[:limit]))
    return rows, total, warnings


#: how programs write that a cell has nothing; in CSV these are texts
NOTHING_WORDS = ("NaN", "nan", "NA", "N/A", "#N/A", "<NA>", "NULL", "null", "None", "\\N")


def _words_for_nothing(task: Task, rows: Table | Dataset) -> list[str]:
    """Return a remark for each column of a CSV file in which some texts are words that programs write for nothing.

    A column of nothing else has them as its values.
    """
    import pyarrow
    from pyarrow import compute

    if not isinstance(rows, Table) or rows.path.suffix.lower() not in SEPARATED:
        return []
    remarks, words = [], [word for word in NOTHING_WORDS if word not in (task.label_names or [])]
    for column in task.columns():
        if column not in rows.column_names or not pyarrow.types.is_string(rows.data.schema.field(column).type):
            continue
        values = rows.data.column(column)
        found = compute.is_in(values, pyarrow.array(words))
        count = compute.sum(found).as_py() or 0
        if 0 < count < len(rows):
            first = compute.index(found, True).as_py()
            remarks.append(
                f"{rows.place(first)}: {values[first].as_py()!r} in column {column} is a text like others, as are "
                f"{count} such of {len(rows)}; leave the rows out if it means that there is none"
            )
    return remarks


def check_column_types(task: Task, rows: Table | Dataset, source: str) -> None:
    """Raise UserError for a column of another type than the kind of task requires. Columns may be missing here.

    A wrong column is named before a tokenizer meets a value that it cannot take.
    """
    from pyarrow import types

    schema = rows.data.schema
    for column, required in task.column_types():
        if column not in schema.names:
            continue
        found = schema.field(column).type
        if not required.matches(found) and not types.is_null(found):
            raise UserError(
                f"task {task.name}: {source} has {found} in column {column}, expected {required.description}; "
                f"{key_of_column(task, column)}= names another column."
            )


def key_of_column(task: Task, column: str) -> str:
    """Return the configuration key that names this column."""
    keys = [f"task.{item.name}" for item in fields(task) if getattr(task, item.name) == column]
    return keys[0] if keys else "task.*"


def check_columns(task: Task, rows: Table | Dataset, source: str, columns: list[str] | None = None) -> None:
    """Raise UserError unless the rows have every column, and each row a value in it. ``columns``: None: of the task."""
    columns = task.columns() if columns is None else columns
    for column in columns:
        if column not in rows.column_names:
            names = rows.column_names
            origin = naming_of_columns(rows.path, names) if isinstance(rows, Table) else ""
            raise UserError(
                f"task {task.name}: {source} has no column '{column}'.{did_you_mean(column, names)} It has "
                f"{', '.join(names)}; say which one is meant with {key_of_column(task, column)}=COLUMN.{origin}"
            )
    for column in columns:
        if rows.data.column(column).null_count:
            first = next(i for i, value in enumerate(rows[column]) if value is None)
            raise UserError(
                f"task {task.name}: {place_of(rows, source, first)} has nothing in column {column}. Write a value, "
                "or leave the row out."
            )


def shares_split(task: Task, data: Data) -> bool:
    """Whether evaluation rows must be held out of the training rows."""
    if data.source == "files":
        return data.validation is None
    return data.source != "embedded" and task.eval_split == task.train_split


def _side_of_split(task: Task, rows: Table | Dataset, source: str, train: bool) -> tuple[Table | Dataset, str]:
    """Return the rows without those held out for evaluation, or only these, and a description of which they are."""
    evaluation = held_out(*task.holdout_groups(rows), task.validation_share)
    excluded = set(evaluation)
    rows = rows.select([i for i in range(len(rows)) if i not in excluded] if train else evaluation)
    side = f"{'less' if train else 'only'} {task.validation_share:g} held out"
    if not len(rows):
        raise UserError(
            f"task {task.name}: {source} {side} leaves no rows. Give data.validation=FILE, or change "
            "task.validation_share."
        )
    return rows, side
