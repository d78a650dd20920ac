"""``inputs.json``: the files and directories that a run is made from, and whether they have changed since.

A run records its files of rows and the local directories of its checkpoint, tokenizer and teacher before it trains.
The same command later compares them: sizes and times first, contents only if those differ. A file that was only touched
or copied has not changed. A file that is gone is no error here: a finished run no longer needs it, and an unfinished
one fails where it reads it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparse_xp.data.corpus import corpus_files, files_fingerprint
from sparse_xp.data.limits import Limits
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import files_stamp, json_digest
from sparse_xp.files.json_text import to_json
from sparse_xp.files.reading import explain_read_errors, resolve_model_dir
from sparse_xp.files.writing import write_text
from sparse_xp.run_directory import INPUTS, has_begun, is_run
from sparse_xp.schema import check_types
from sparse_xp.settings import Data, Model, TeacherSource
from sparse_xp.tasks.base import Task
from sparse_xp.tasks.sources import split_files
from sparse_xp.tasks.unlabeled_rows import read_unlabeled

#: the option that names the file of rows without labels
UNLABELED = "data.unlabeled"

#: the files of a checkpoint that a run reads, beside its weights
CHECKPOINT_FILES = (
    *("config.json", "quantization.json", "recipe.yaml", "added_tokens.json", "special_tokens_map.json"),
    *("tokenizer*.json", "vocab*", "merges.txt", "*.model"),
)
#: its weights; of several kinds the first is read
WEIGHTS = ("model*.safetensors*", "pytorch_model*.bin*")


@dataclass
class Input:
    """A file of rows, or a directory of a model.

    ``key``: the option that names it. ``stamp``: a digest of sizes and times. ``digest``: one of the contents.
    ``rows``: the number of rows in it, None for a model.
    """

    key: str
    path: str
    stamp: str
    digest: str
    rows: int | None = None


def record_inputs(
    task: Task, data: Data, model: Model, teacher: TeacherSource, rows: Mapping[str, int], directory: Path
) -> None:
    """Write ``inputs.json``. ``rows``: the number of rows in each file."""
    places = [*_data_files(task, data), *_model_directories(model, teacher)]
    found = [
        Input(key, str(path), files_stamp(_files(key, path)), _digest(key, path), rows.get(str(path)))
        for key, path in places
    ]
    write_text(directory / INPUTS, to_json({"inputs": [asdict(each) for each in found]}, indent=2) + "\n")


def check_inputs(directory: Path, task: Task, data: Data) -> None:
    """Raise UserError if what the run in ``directory`` was made from has changed since. A run that kept nothing passes.

    ``task``, ``data``: those of the run; they count the rows that a changed file has now.
    """
    if not (has_begun(directory) and is_run(directory) and os.path.lexists(directory / INPUTS)):
        return
    for recorded in _read_inputs(directory / INPUTS):
        path = Path(recorded.path)
        files = _files(recorded.key, path) if path.exists() else []
        if not files or files_stamp(files) == recorded.stamp or _digest(recorded.key, path) == recorded.digest:
            continue
        raise UserError(
            f"{recorded.key}: {path} has changed since the run in {directory} began"
            f"{_difference(recorded, task, data)}. To train on what is there now, move the run's directory away, or "
            "give the new run another with hydra.run.dir= (a sweep: hydra.sweep.dir=). To keep the old run, put the "
            f"former {path.name} back."
        )


def _difference(recorded: Input, task: Task, data: Data) -> str:
    """Return how many rows a changed file had and has, as the end of a sentence; nothing for a model."""
    if recorded.rows is None:
        return ""
    before = f"it had {recorded.rows:,} rows"
    try:
        now = _count_rows(recorded, task, data)
    except UserError as error:
        return f" ({before}, and cannot be read now: {str(error).rstrip('.')})"
    return f" ({before}, and has {now:,} now{', not the same' if now == recorded.rows else ''})"


def _count_rows(recorded: Input, task: Task, data: Data) -> int:
    """Return how many rows a file of rows has now. Raises UserError if it cannot be read."""
    path = Path(recorded.path)
    if recorded.key == UNLABELED:
        return len(read_unlabeled(task, path, data))
    return len(task.read(path, Path(data.cache), Limits.of(data.max_rows, data.max_gigabytes), data.text_format))


def _read_inputs(path: Path) -> list[Input]:
    """Return what ``record_inputs`` wrote. Raises UserError for a damaged file."""
    with explain_read_errors(path, f"Restore it, or move {path.parent} away: the same command makes the run again."):
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        inputs = [Input(**each) for each in raw["inputs"]]
        for each in inputs:
            check_types(each)
        return inputs


def _data_files(task: Task, data: Data) -> Iterator[tuple[str, Path]]:
    """Yield the option and the path of each file of rows."""
    files = dict.fromkeys([*split_files(task, data, train=True), *split_files(task, data, train=False)])
    for path in files:
        key = "data.root" if data.source == "local" else "data.train" if str(path) == data.train else "data.validation"
        yield key, path
    if data.unlabeled is not None:
        yield UNLABELED, Path(data.unlabeled)


def _model_directories(model: Model, teacher: TeacherSource) -> Iterator[tuple[str, Path]]:
    """Yield the option and the path of each local directory of a model. A hub id is none."""
    named = {"model.checkpoint": model.checkpoint, "model.tokenizer": model.tokenizer, "teacher.path": teacher.path}
    for key, place in named.items():
        if place and (path := Path(resolve_model_dir(place))).is_dir():
            yield key, path


def _files(key: str, path: Path) -> list[Path]:
    """Return the files whose contents count: those of rows, or of a model's directory."""
    if key.startswith("data."):
        return corpus_files(path)
    weights = next((found for pattern in WEIGHTS if (found := list(path.glob(pattern)))), [])
    others = [file for pattern in CHECKPOINT_FILES for file in path.glob(pattern)]
    return sorted({file for file in [*weights, *others] if file.is_file()})


def _digest(key: str, path: Path) -> str:
    """Return a digest of the contents of these files, and of their names in a directory."""
    if path.is_file():
        return files_fingerprint(path)
    return json_digest([(str(file.relative_to(path)), files_fingerprint(file)) for file in _files(key, path)])
