"""Where the rows of a task come from: the hub, a local mirror, the user's files, or a generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.data.corpus import fingerprint, keep_stream
from sparse_xp.data.hub import unavailable
from sparse_xp.data.readers import Limits
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files import digest
from sparse_xp.settings import Data
from sparse_xp.tasks import QuestionAnswering, Task, TextClassification, TokenClassification

if TYPE_CHECKING:
    from datasets import Dataset

#: Subsets and splits are the same for every seed of a run, so that seeds measure training and nothing else.
SUBSET_SEED = 0


@dataclass
class Loaded:
    """Rows, a fingerprint of where they came from, how many there were, and what a person should know of them."""

    rows: Dataset
    origin: str
    total: int
    remarks: list[str]


def load_rows(task: Task, data: Data, train: bool) -> Loaded:
    """The rows of the train or the evaluation split.

    Of several splits (``a+b``) the rows follow each other, and a column ``split`` says which is whose. Where there is
    no split of its own for evaluation, a seeded share of the training rows is held out.
    Raises UserError for a missing file, an unreachable hub, missing columns or values, or no rows.
    """
    names = (task.train_split if train else task.eval_split).split("+")
    parts = [_load_split(task, data, name, train) for name in names]
    total, remarks = sum(part.total for part in parts), [remark for part in parts for remark in part.remarks]
    origin = digest([(part.origin, len(part.rows)) for part in parts])
    if len(parts) == 1:
        return Loaded(parts[0].rows, origin, total, remarks)
    from datasets import concatenate_datasets

    named = [part.rows.add_column("split", [name] * len(part.rows)) for name, part in zip(names, parts, strict=True)]
    return Loaded(concatenate_datasets(named), origin, total, remarks)


def _load_split(task: Task, data: Data, split: str, train: bool) -> Loaded:
    load = {"local": _local, "embedded": _embedded, "hub": _hub, "files": _files}[data.source]
    rows, origin = load(task, data, split, train)
    if not len(rows):
        raise UserError(f"task {task.name}: {origin} has no rows.")
    check_types(task, rows, origin)
    rows = task.completed(rows)
    missing = [column for column in task.columns() if column not in rows.column_names]
    if missing:
        raise UserError(
            f"task {task.name}: {origin} has no column '{missing[0]}'.{did_you_mean(missing[0], rows.column_names)} "
            f"It has {', '.join(rows.column_names)}; say which one is meant with {field_of(task, missing[0])}=COLUMN."
        )
    for column in task.columns():
        if rows.data.column(column).null_count:
            first = next(i for i, value in enumerate(rows[column]) if value is None)
            raise UserError(f"task {task.name}: {origin} has nothing in column {column} of row {first}.")
    if shares_split(task, data):
        kept = held_out(*task.groups(rows), task.validation_share)
        chosen = set(kept)
        rows = rows.select([i for i in range(len(rows)) if i not in chosen] if train else kept)
        origin = f"{origin} {'less' if train else 'only'} {task.validation_share:g} held out"
        if not len(rows):
            raise UserError(
                f"task {task.name}: {origin} leaves no rows. Give data.validation=FILE, or change "
                "task.validation_share."
            )
    rows, remarks = task.checked(rows, train)
    if not len(rows):
        raise UserError(f"task {task.name}: {origin} has no rows that can be used. {' '.join(remarks)}")
    total = len(rows)
    limit = task.max_train_samples if train else task.max_eval_samples
    if limit is not None and limit < total:
        rows = rows.select(sorted(permutation(total)[:limit]))
    return Loaded(rows, origin, total, remarks)


def check_types(task: Task, rows: Dataset, origin: str) -> None:
    """Raise UserError for a column of another type than the kind of the task needs; of those that are there."""
    from pyarrow import compute, types

    def text(kind: Any) -> bool:
        return any(test(kind) for test in (types.is_string, types.is_large_string, types.is_string_view, types.is_null))

    def name(kind: Any) -> bool:
        return text(kind) or types.is_integer(kind)

    def plain(kind: Any) -> bool:
        return not types.is_nested(kind)

    def several(kind: Any, inner: Callable[[Any], bool]) -> bool:
        listed = (types.is_list, types.is_large_list, types.is_fixed_size_list)
        return any(test(kind) for test in listed) and inner(kind.value_type)

    def answer(kind: Any) -> bool:
        if not types.is_struct(kind):
            return False
        parts = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return (
            {"text", "answer_start"} <= set(parts)
            and several(parts["text"], text)
            and several(parts["answer_start"], lambda one: types.is_integer(one) or types.is_null(one))
        )

    needed: list[tuple[str, Callable[[Any], bool], str]] = []
    if isinstance(task, QuestionAnswering):
        needed = [(column, text, "texts") for column in (task.question, task.context)]
        needed += [
            (task.id, name, "texts or whole numbers"),
            (task.answers, answer, '{"text": [texts], "answer_start": [whole numbers]}'),
        ]
    elif isinstance(task, TextClassification) and task.problem == "single_label":
        needed = [(task.label, plain, "one class a row (task.problem=multi_label takes lists)")]
    elif isinstance(task, TokenClassification):
        needed = [
            (task.tokens, lambda kind: several(kind, text), "lists of texts"),
            (task.tags, lambda kind: several(kind, name), "lists of texts or whole numbers"),
        ]
    schema = rows.data.schema
    for column, fits, wanted in needed:
        if column in schema.names and not (fits(schema.field(column).type) or types.is_null(schema.field(column).type)):
            raise UserError(
                f"task {task.name}: {origin} has {schema.field(column).type} in column {column}, want {wanted}; "
                f"{field_of(task, column)}= names another column."
            )
    if isinstance(task, QuestionAnswering) and task.answers in schema.names:
        found = rows.data.column(task.answers)
        if types.is_struct(found.type):
            lengths = [
                compute.list_value_length(compute.struct_field(found, part)) for part in ("text", "answer_start")
            ]
            unequal = compute.index(compute.not_equal(*lengths), True).as_py()
            if unequal >= 0:
                raise UserError(
                    f"task {task.name}: {origin} has in column {task.answers} of row {unequal} not as many of "
                    "answer_start as of text; each answer needs its place."
                )


def field_of(task: Task, column: str) -> str:
    """The configuration key whose value is the name of that column."""
    named = [f"task.{item.name}" for item in fields(task) if getattr(task, item.name) == column]
    return named[0] if named else "task.*"


def shares_split(task: Task, data: Data) -> bool:
    """Whether evaluation rows must be held out of the training rows."""
    if data.source == "files":
        return data.validation is None
    return data.source != "embedded" and task.eval_split == task.train_split


def held_out(keys: list[Any], stratify: bool, share: float) -> list[int]:
    """The numbers of the rows to evaluate on, about ``share`` of all, by the rows' ``keys``.

    ``stratify``: the same share of each key (classes). Otherwise rows of one key stay together (questions on one
    text), and whole keys are drawn until there are enough rows. A pure function of its arguments.
    """
    order = permutation(len(keys))
    wanted = round(share * len(keys))
    chosen: list[int] = []
    if stratify:
        for key in dict.fromkeys(keys):
            rows = [i for i in order if keys[i] == key]
            chosen += rows[: round(share * len(rows))]
    else:
        members: dict[Any, list[int]] = {}
        for i in order:
            members.setdefault(keys[i], []).append(i)
        for rows in members.values():
            if len(chosen) >= wanted:
                break
            chosen += rows
    return sorted(chosen)


def permutation(size: int) -> list[int]:
    """The numbers below ``size`` in an order that is always the same."""
    import numpy as np

    return [int(i) for i in np.random.default_rng(SUBSET_SEED).permutation(size)]


def _local(task: Task, data: Data, split: str, train: bool) -> tuple[Dataset, str]:
    path = Path(str(data.root)) / task.folder / f"{split}.parquet"
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else path.parent.parent
        there = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such directory"
        raise UserError(
            f"task {task.name}: no file {path}. data.root=DIR holds <dataset>/<split>.parquet with the hub's columns; "
            f"{folder} has: {there}."
        )
    return task.read(path, Path(data.cache), limits_of(data)), f"{task.folder}/{split}.parquet {fingerprint(path)}"


def limits_of(data: Data) -> Limits:
    """How much may be read of a file."""
    return Limits(rows=data.max_rows, bytes=int(data.max_gigabytes * 1e9))


def _files(task: Task, data: Data, split: str, train: bool) -> tuple[Dataset, str]:
    path = Path(str(data.train if train or data.validation is None else data.validation))
    rows = task.read(path, Path(data.cache), limits_of(data))
    return rows, f"{path.name} {fingerprint(path)}"


def _embedded(task: Task, data: Data, split: str, train: bool) -> tuple[Dataset, str]:
    from datasets import Dataset

    size = data.embedded_train_rows if train else data.embedded_eval_rows
    # The second of two splits has the rows after those of the first.
    begin = (task.train_split if train else task.eval_split).split("+").index(split) * size
    made = task.embedded("train" if train else "validation", begin + size)
    made = {name: values[begin:] for name, values in made.items()}
    return Dataset.from_dict(made), f"embedded/{split} {digest(made)}"


def _hub(task: Task, data: Data, split: str, train: bool) -> tuple[Dataset, str]:
    from datasets import load_dataset

    if not task.dataset:
        raise UserError(
            f"task {task.name} has no data set of its own: give data.train=FILE (and data.validation=FILE), or "
            "task.dataset=, an id on the hub."
        )
    name = f"{task.dataset}{f'/{task.subset}' if task.subset else ''}"
    try:
        if data.stream:
            return _streamed(task, data, split), f"{name}@{task.revision}/{split}, {task.max_train_samples} streamed"
        rows = load_dataset(task.dataset, task.subset, split=split, revision=task.revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise unavailable(f"data set {name} (split {split})", error) from error
    return rows, f"{name}@{task.revision}/{split}"


def _streamed(task: Task, data: Data, split: str) -> Dataset:
    """As many rows as the task wants, without the rest of the data set: fetched once, kept in the cache.

    Where evaluation rows are held out of the training rows, they are among them. Raises UserError for no limit.
    """
    from datasets import load_dataset

    wanted = task.max_train_samples if split == task.train_split else task.max_eval_samples
    if wanted is None:
        raise UserError(
            f"data.stream=true: say how many rows of {split} to fetch, with task.max_train_samples= (and, where "
            "evaluation has a split of its own, task.max_eval_samples=)."
        )
    key = digest([task.dataset, task.subset, task.revision, split, wanted, SUBSET_SEED])
    stream = load_dataset(task.dataset, task.subset, split=split, revision=task.revision, streaming=True)
    return keep_stream(stream, wanted, SUBSET_SEED, Path(data.cache) / "streams" / f"{task.folder}-{key}")
