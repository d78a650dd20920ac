"""What travels with ``model.onnx``: the task, samples, where it was made, a card, the recipe, and checksums of all."""

from __future__ import annotations

import json
import math
import re
import shutil
import types
import zipfile
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from sparse_xp.cpu import this_cpu
from sparse_xp.data.hub import parsed
from sparse_xp.deployment.engines import AGAIN, fill, library
from sparse_xp.errors import UserError
from sparse_xp.files import damage, files_in, reading, write_text
from sparse_xp.result import TRAINED
from sparse_xp.tasks import TASKS, Task

if TYPE_CHECKING:
    from sparse_xp.evaluation import Subject

Arrays = dict[str, np.ndarray]
T = TypeVar("T")

SAMPLES = 4
#: the files without which a folder is not whole, and those that it may have
NEEDED = (
    *("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "task.json", "deployment.json"),
    *("model_card.md", "samples/inp-0000.npz", "samples/out-0000.npz"),
)
OURS = re.compile(r"samples/(inp|out)-\d{4}\.npz|model\.(xml|bin)|recipe\.yaml")
#: fields of a task that only its training looks at
TRAINING = ("revision", "train_split", "validation_share", "max_train_samples", "max_eval_samples", "dense", "transfer")


def write_bundle(
    directory: Path,
    subject: Subject,
    inputs: list[str],
    forward: Callable[[Arrays], Arrays],
    shape: tuple[int | None, int | None] = (None, None),
) -> None:
    """Add ``task.json`` and ``samples/``.

    ``forward``: the exported file, arrays by name; ``inputs``: the names of what it takes, in its order; ``shape``: the
    rows and tokens that it takes, where they are fixed.
    """
    write_task(directory, subject.task, int(subject.tokenizer.pad_token_id or 0))
    write_samples(directory / "samples", subject, inputs, forward, shape)


def write_task(directory: Path, task: Task, pad_token_id: int) -> None:
    """``task.json``: what predicting needs to know of the task, and the names of the labels."""
    fields = {name: value for name, value in asdict(task).items() if name not in TRAINING}
    told = {
        "kind": type(task).__name__,
        "fields": fields,
        "labels": task.label_names,
        "outputs": list(task.outputs),
        "pad_token_id": pad_token_id,
    }
    write_text(directory / "task.json", json.dumps(told, indent=2) + "\n")


def read_task(directory: Path) -> tuple[Task, int]:
    """The task that ``write_task`` wrote, and the token that fills up batches. Raises UserError for another file."""
    path = directory / "task.json"
    with reading(path, AGAIN):
        told = parsed(path.read_bytes())
        kind, pad = told["kind"], told["pad_token_id"]
        if not isinstance(kind, str) or kind not in TASKS:
            raise ValueError(f"kind: want one of {', '.join(TASKS)}")
        if not fits(pad, int) or pad < 0:
            raise ValueError("pad_token_id: want the number of a token")
        return made_of(TASKS[kind], told["fields"]), pad


@dataclass(frozen=True)
class Limits:
    """How far logits may be from those recorded: any of them, or the root mean square of all over their spread."""

    max_abs_diff: float | None
    max_rms_diff: float | None


@dataclass(frozen=True)
class Origin:
    """``deployment.json``: the CPU and the onnxruntime that computed ``samples/``, and what another may differ by.

    ``portable``: whether the integers of the file compute the same in every session (``saturation``).
    """

    cpu: str
    onnxruntime: str
    integers: bool
    portable: bool
    limits: Limits


def write_deployment(directory: Path, integers: bool, portable: bool, limits: Limits) -> None:
    """``deployment.json``, for this CPU."""
    origin = Origin(str(this_cpu()), version("onnxruntime"), integers, portable, limits)
    write_text(directory / "deployment.json", json.dumps(asdict(origin), indent=2) + "\n")


def read_deployment(directory: Path) -> Origin:
    """What ``write_deployment`` wrote. Raises UserError for a folder without it, or with another file."""
    path = directory / "deployment.json"
    with reading(path, AGAIN):
        told = parsed(path.read_bytes())
        return made_of(Origin, {**told, "limits": made_of(Limits, told["limits"])})


def max_tokens(directory: Path) -> int:
    """How many tokens the model has places for. Raises UserError for a folder without such a ``config.json``."""
    return _number_of(directory / "config.json", "max_position_embeddings")


def vocabulary(directory: Path) -> int:
    """How many tokens there are to choose from. Raises UserError for a folder without such a ``config.json``."""
    return _number_of(directory / "config.json", "vocab_size")


def _number_of(path: Path, name: str) -> int:
    with reading(path, AGAIN):
        value = parsed(path.read_bytes())[name]
        if not fits(value, int) or value < 1:
            raise ValueError(f"{name}: want a whole number of at least 1")
        return int(value)


def made_of(cls: type[T], told: Any) -> T:
    """The dataclass with the values of a JSON object. Raises ValueError or KeyError for one that is not of its form."""
    if not isinstance(told, dict):
        raise ValueError(f"want an object for a {cls.__name__}")
    hints = get_type_hints(cls)
    known = {each.name: each for each in fields(cls)}  # type: ignore[arg-type]
    for name, value in told.items():
        if name not in known:
            raise ValueError(f"{name}: a {cls.__name__} has no such field")
        if not fits(value, hints[name]):
            raise ValueError(f"{name}: a value of another type than that of a {cls.__name__}")
    for name, each in known.items():
        if name not in told and each.default is MISSING and each.default_factory is MISSING:
            raise KeyError(name)
    return cls(**told)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value out of JSON is what a field of that type may hold."""
    if get_origin(hint) in (types.UnionType, Union):
        return any(fits(value, each) for each in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(fits(each, get_args(hint)[0]) for each in value)
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float) and abs(value) < math.inf
    if hint is int:
        return isinstance(value, int) and abs(value) < 1 << 31
    if hint is str:
        return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
    if is_dataclass(hint):  # numbers of training, which are plain objects here
        return isinstance(value, dict | hint)
    return isinstance(value, hint)


def write_samples(
    directory: Path,
    subject: Subject,
    inputs: list[str],
    forward: Callable[[Arrays], Arrays],
    shape: tuple[int | None, int | None],
) -> None:
    """``inp-0000.npz``, ``out-0000.npz``, ...: a few evaluation features, [1, tokens], and what the file makes of them.

    Token numbers and logits under the names of the graph's inputs and outputs; no text.
    """
    from sparse_xp.data.batches import collate

    directory.mkdir()
    total = len(subject.eval_features)
    for number, row in enumerate(range(0, total, max(1, -(-total // SAMPLES)))):
        batch = collate(subject.eval_features, [row], inputs, subject.padding)
        arrays = fill({name: value.numpy() for name, value in batch.items()}, shape)
        savez(directory / f"inp-{number:04d}.npz", arrays)
        savez(directory / f"out-{number:04d}.npz", forward(arrays))


def savez(path: Path, arrays: Arrays) -> None:
    """The arrays in one file, by name."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> Arrays:
    """The arrays that ``savez`` wrote, by name. Raises UserError for a file that it did not write."""
    with reading(path, AGAIN):
        size = path.stat().st_size
    with library(path), zipfile.ZipFile(path) as archive:
        # What is stored as it is takes no more memory than disk: nothing small unpacks to gigabytes.
        infos = archive.infolist()
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
        if not stored or sum(info.file_size for info in infos) > size:
            raise ValueError("it is packed, and samples are not")
    with library(path), np.load(path, allow_pickle=False) as found:
        return dict(found)


def complete(directory: Path, card: str, recipe: Path | None) -> None:
    """Add what is known once all is measured: ``model_card.md``, and ``recipe.yaml`` of a run."""
    write_text(directory / "model_card.md", card)
    if recipe and recipe.is_file():
        shutil.copyfile(recipe, directory / "recipe.yaml")


def check_files(directory: Path) -> None:
    """Raise UserError unless every file that a folder must have, and every one of ours that it has, is as exported.

    Files of other names may lie beside them.
    """
    needed = {*NEEDED, *(name for name in files_in(directory) if OURS.fullmatch(name))}
    if wrong := damage(directory, sorted(needed)):
        raise UserError(f"{directory}: {wrong}. Copy the whole folder again, or export it again.")


def locate(words: dict[str, str]) -> Path:
    """The deployment folder of ``run=DIR`` (a finished run) or ``model=DIR`` (the folder itself).

    Raises UserError for neither, both, an unfinished run or a directory without ``model.onnx``.
    """
    if ("run" in words) == ("model" in words):
        raise UserError("Say run=DIR (a finished run) or model=DIR (a deployment folder).")
    return deployment_of(Path(words["run"]), True) if "run" in words else deployment_of(Path(words["model"]))


def deployment_of(place: Path, run: bool = False) -> Path:
    """``place`` itself if it has a ``model.onnx``, else its ``deployment/``; with ``run`` only that of a finished run.

    Raises UserError if there is none.
    """
    with reading(place):
        return _deployment_of(place, run)


def _deployment_of(place: Path, run: bool) -> Path:
    if not run and (place / "model.onnx").is_file():
        return place
    if (place / "result.json").is_file() and (place / "deployment/model.onnx").is_file():
        return place / "deployment"
    if (place / "result.json").is_file():
        raise UserError(f"{place}/deployment has no model.onnx: python -m sparse_xp.export run={place} makes it again.")
    if (place / TRAINED).is_file():
        raise UserError(f"{place} is trained and has no deployment: python -m sparse_xp.export run={place} makes it.")
    if (place / "config.yaml").is_file():
        raise UserError(f"{place} holds an unfinished run: issue its command again first.")
    raise UserError(f"{place} holds no {'run' if run else 'model.onnx'}{'' if place.is_dir() else ': no such folder'}.")
