"""What travels with ``model.onnx``: the task, samples, where it was made, a card, the recipe, and checksums of all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparse_xp.cpu import this_cpu
from sparse_xp.engines import fill
from sparse_xp.errors import UserError
from sparse_xp.files import write_text
from sparse_xp.result import TRAINED
from sparse_xp.tasks import TASKS, Task

if TYPE_CHECKING:
    from sparse_xp.evaluation import Subject

Arrays = dict[str, np.ndarray]

CHECKSUMS = "checksums.txt"
SAMPLES = 4
#: fields of a task that only its training looks at
TRAINING = ("revision", "train_split", "validation_share", "max_train_samples", "max_eval_samples", "dense", "transfer")


def write_bundle(
    directory: Path,
    subject: Subject,
    inputs: list[str],
    forward: Callable[[Arrays], Arrays],
    shape: tuple[int | None, int | None] = (None, None),
) -> None:
    """Add ``task.json``, ``samples/`` and ``checksums.txt``.

    ``forward``: the exported file, arrays by name; ``inputs``: the names of what it takes, in its order; ``shape``: the
    rows and tokens that it takes, where they are fixed.
    """
    write_task(directory, subject.task, int(subject.tokenizer.pad_token_id or 0))
    write_samples(directory / "samples", subject, inputs, forward, shape)
    write_checksums(directory)


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
    if not path.is_file():
        raise UserError(f"{directory} has no task.json{AGAIN}")
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return TASKS[told["kind"]](**told["fields"]), int(told["pad_token_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not what this version of sparse_xp writes ({error}){AGAIN}") from error


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
    if not path.is_file():
        raise UserError(f"{directory} has no deployment.json{AGAIN}")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Origin(**{**told, "limits": Limits(**told["limits"])})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not what this version of sparse_xp writes ({error}){AGAIN}") from error


def max_tokens(directory: Path) -> int:
    """How many tokens the model has places for. Raises UserError for a folder without ``config.json``."""
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} has no config.json{AGAIN}")
    return int(json.loads(path.read_text(encoding="utf-8"))["max_position_embeddings"])


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
    from sparse_xp.data import collate

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


def complete(directory: Path, card: str, recipe: Path | None) -> None:
    """Add what is known once the run is over: ``model_card.md``, ``recipe.yaml``; and renew the checksums."""
    write_text(directory / "model_card.md", card)
    if recipe and recipe.is_file():
        shutil.copyfile(recipe, directory / "recipe.yaml")
    write_checksums(directory)


def write_checksums(directory: Path) -> None:
    """``checksums.txt``, for ``sha256sum -c``: every other file."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{sha256(path)}  {path.relative_to(directory).as_posix()}\n" for path in paths]
    write_text(directory / CHECKSUMS, "".join(lines))


def check_files(directory: Path) -> None:
    """Raise UserError for the first file that ``checksums.txt`` names and that is missing or another."""
    listed = directory / CHECKSUMS
    if not listed.is_file():
        raise UserError(f"{directory} has no {CHECKSUMS}{AGAIN}")
    for line in listed.read_text(encoding="utf-8").splitlines():
        wanted, _, name = line.partition("  ")
        if not (directory / name).is_file():
            raise UserError(f"{directory}: {name} is missing. Copy the whole folder, or export it again.")
        if sha256(directory / name) != wanted:
            raise UserError(f"{directory}: {name} is not what was exported (sha256). Copy it or export it again.")


def sha256(path: Path) -> str:
    """Sixty-four hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


AGAIN = ": it is incomplete or of an earlier version. python -m sparse_xp.export run=DIR writes a run's folder again."
