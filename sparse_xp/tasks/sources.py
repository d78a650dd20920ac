"""The four sources of a split: the user's files, a local mirror of the hub, generated rows, and the hub.

Each returns the rows, a name of the source for messages, and a description that goes into their fingerprint, so it
changes whenever the rows may have changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.data.arrow_files import cache_stream
from sparse_xp.data.corpus import files_fingerprint
from sparse_xp.data.hub import hub_error
from sparse_xp.data.limits import Limits
from sparse_xp.data.readers import options_of
from sparse_xp.data.table import Table
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import json_digest
from sparse_xp.files.text_format import RECOGNISED, TextFormat
from sparse_xp.settings import Data
from sparse_xp.tasks.base import Task
from sparse_xp.tasks.holdout import SUBSET_SEED

if TYPE_CHECKING:
    from datasets import Dataset


#: rows, the name of their source for messages, and its description
Source = tuple["Table | Dataset", str, str]


def read_source(task: Task, data: Data, split: str, train: bool) -> Source:
    """Return the rows of a split, the name of where they come from, and a description of it.

    Raises UserError for a missing or damaged file, an unreachable hub, or a task without a data set.
    """
    read = {"files": _files, "local": _local, "embedded": _generated, "hub": _hub}[data.source]
    return read(task, data, split, train)


def split_files(task: Task, data: Data, train: bool) -> list[Path]:
    """Return the files that the train or the evaluation split is read from; none for generated rows and the hub."""
    if data.source == "files":
        return [Path(str(data.train if train or data.validation is None else data.validation))]
    if data.source == "local":
        names = (task.train_split if train else task.eval_split).split("+")
        return [Path(str(data.root)) / task.folder / f"{name}.parquet" for name in names]
    return []


def _local(task: Task, data: Data, split: str, train: bool) -> Source:
    path = Path(str(data.root)) / task.folder / f"{split}.parquet"
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else path.parent.parent
        there = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such directory"
        raise UserError(
            f"task {task.name}: no file {path}. data.root=DIR holds <dataset>/<split>.parquet with the hub's columns; "
            f"{folder} has: {there}."
        )
    rows = task.read(path, Path(data.cache), Limits.of(data.max_rows, data.max_gigabytes), RECOGNISED)
    name = f"{task.folder}/{split}.parquet"
    return rows, name, f"{name} {files_fingerprint(path)}"


def _files(task: Task, data: Data, split: str, train: bool) -> Source:
    [path] = split_files(task, data, train)
    text_format = _text_format(path, data)
    rows = task.read(path, Path(data.cache), Limits.of(data.max_rows, data.max_gigabytes), text_format)
    told = "".join(f" {name}={value!r}" for name, value in text_format.given.items())
    return rows, str(path), f"{path.name} {files_fingerprint(path)}{told}"


def _text_format(path: Path, data: Data) -> TextFormat:
    """Return how a file is to be read, without options that mean something for the other of two files only."""
    elsewhere = {name for file in (data.train, data.validation) if file for name in options_of(Path(file))}
    return data.text_format.without(elsewhere - set(options_of(path)))


def _generated(task: Task, data: Data, split: str, train: bool) -> Source:
    from datasets import Dataset

    size = data.embedded_train_rows if train else data.embedded_eval_rows
    # The second of two splits has the rows after those of the first.
    begin = (task.train_split if train else task.eval_split).split("+").index(split) * size
    generated = task.generated_rows("train" if train else "validation", begin + size)
    generated = {name: values[begin:] for name, values in generated.items()}
    name = f"embedded/{split}"
    return Dataset.from_dict(generated), name, f"{name} {json_digest(generated)}"


def _hub(task: Task, data: Data, split: str, train: bool) -> Source:
    from datasets import load_dataset

    if not task.dataset:
        raise UserError(
            f"task {task.name} has no data set of its own: give data.train=FILE (and data.validation=FILE), or "
            "task.dataset=, an id on the hub."
        )
    name = f"{task.dataset}{f'/{task.subset}' if task.subset else ''}"
    try:
        if data.stream:
            streamed = f"{name}@{task.revision}/{split}, {task.max_train_samples} streamed"
            return _streamed(task, data, split), streamed, streamed
        rows = load_dataset(task.dataset, task.subset, split=split, revision=task.revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise hub_error(f"data set {name} (split {split})", error) from error
    name = f"{name}@{task.revision}/{split}"
    return rows, name, name


def _streamed(task: Task, data: Data, split: str) -> Dataset:
    """As many rows as the task uses, without the rest of the data set; fetched once and cached.

    Where evaluation rows are held out of the training rows, they are among them. Raises UserError for no limit.
    """
    from datasets import load_dataset

    wanted = task.max_train_samples if split == task.train_split else task.max_eval_samples
    if wanted is None:
        raise UserError(
            f"data.stream=true: say how many rows of {split} to fetch, with task.max_train_samples= (and, where "
            "evaluation has a split of its own, task.max_eval_samples=)."
        )
    key = json_digest([task.dataset, task.subset, task.revision, split, wanted, SUBSET_SEED])
    stream = load_dataset(task.dataset, task.subset, split=split, revision=task.revision, streaming=True)
    return cache_stream(stream, wanted, SUBSET_SEED, Path(data.cache) / "streams" / f"{task.folder}-{key}")
