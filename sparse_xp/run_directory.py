"""The directory of a run: whose it is, what it holds, and how far the run in it has come."""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml

from sparse_xp.errors import UserError
from sparse_xp.files import (
    DRAFT,
    MARKER,
    WRITTEN,
    discard,
    is_draft,
    is_empty,
    is_signed,
    mark,
    marked,
    may_fill,
    put_aside,
    reading,
    remove,
    write_text,
)
from sparse_xp.result import TRAINED, Result

ERROR = "error.txt"
RESULT = "result.json"
#: what a run writes into its directory, but for what trackers do
FILES = (
    *("config.yaml", "recipe.yaml", "history.jsonl", "latency.json", "wandb_id", TRAINED, RESULT, "report.md", ERROR),
    "log.txt",
)
#: the directories in it that are written as a whole, each as the kind of its name
WHOLE = ("best", "model", "deployment", ".hydra")
CHECKPOINTS = "checkpoints"


def claim_run(directory: Path) -> None:
    """Make ``directory`` that of a run, or find that it is one.

    Raises UserError if it has files of other origin where a run would write, before anything is written.
    """
    if kind := kept_around(directory):
        raise UserError(
            f"{directory} is, or is inside of, a {kind} that sparse_xp keeps. Give this run a directory of its own "
            "with hydra.run.dir=."
        )
    if there := foreign(directory):
        raise UserError(
            f"{directory} has {', '.join(there)}, which no run of sparse_xp wrote and which stays as it is. Give this "
            "run a directory of its own with hydra.run.dir=, or move what is there away."
        )
    if marked(directory) is None:
        directory.mkdir(parents=True, exist_ok=True)
        with reading(directory / MARKER, "Move it away."):
            mark(directory, "run")


def kept_around(place: Path) -> str | None:
    """The kind of the whole directory that ``place`` is, or is inside of; None if it is in none."""
    real = Path(os.path.realpath(place))
    kinds = (marked(each) for each in (real, *real.parents))
    return next((kind for kind in kinds if kind not in (None, "run")), None)


def foreign(directory: Path) -> list[str]:
    """The names in ``directory`` that a run would write over, and that none has written."""
    if os.path.lexists(directory) and not directory.is_dir():
        return ["a file in its place"]
    others = [name for name in WHOLE if os.path.lexists(place := directory / name) and not may_fill(name)(place)]
    if is_run(directory):
        return others
    return [name for name in (*FILES, CHECKPOINTS) if os.path.lexists(directory / name)] + others


def is_run(directory: Path) -> bool:
    """Whether a directory is that of a run: by its marker, or, of an earlier version, by its configuration."""
    if (kind := marked(directory)) or not (directory / "config.yaml").is_file():
        return kind == "run"
    try:
        return re.fullmatch("[0-9a-f]{10}", stored_hash(directory)) is not None
    except UserError:
        return False


def release(directory: Path) -> None:
    """Take back what a run that never began has made: its marker, and its directory if nothing else is in it."""
    names = (*FILES, *WHOLE, CHECKPOINTS)
    if marked(directory) == "run" and not any(os.path.lexists(directory / name) for name in names):
        (directory / MARKER).unlink()
    if is_empty(directory):
        directory.rmdir()


def stored_hash(directory: Path) -> str:
    """The hash of the configuration that ``config.yaml`` is of. Raises UserError if it is missing or damaged."""
    path = directory / "config.yaml"
    with reading(path, f"Restore it, or move {directory} away: the same command makes the run again."):
        return str(yaml.safe_load(path.read_text(encoding="utf-8"))["config_hash"])


def begun(directory: Path) -> bool:
    """Whether a run has left something of its work."""
    return any((directory / name).exists() for name in (RESULT, CHECKPOINTS, "best", "history.jsonl"))


def state(directory: Path, config_hash: str) -> str:
    """``finished``, ``failed``, ``interrupted``, ``to do``; or ``foreign``: of another configuration or origin."""
    if begun(directory) and is_run(directory) and stored_hash(directory) == config_hash:
        if (directory / RESULT).exists():
            return "finished"
    elif begun(directory):
        return "foreign"
    if foreign(directory):
        return "foreign"
    if (directory / ERROR).exists():
        return "failed"
    return "interrupted" if begun(directory) else "to do"


def find_finished(directory: Path, config_hash: str) -> Result | None:
    """The result in ``directory`` if its run is finished. Raises UserError if the directory holds another run."""
    if not is_run(directory):
        return None
    if begun(directory) and (theirs := stored_hash(directory)) != config_hash:
        raise UserError(
            f"{directory} holds a run of another configuration ({theirs}, this one is {config_hash}); compare its "
            "config.yaml. Remove the directory, or give this run its own with hydra.run.dir=."
        )
    path = directory / RESULT
    return Result.read(path) if os.path.lexists(path) else None


def clear(directory: Path) -> None:
    """Remove what only an unfinished run needs, and what an earlier attempt said of its failure."""
    remove(directory / "best", "best")
    folder = directory / CHECKPOINTS
    for checkpoint in checkpoints(folder):
        remove(checkpoint, "checkpoint")
    for place in [*(directory / name for name in WHOLE), *(folder / f"step-{step:08d}" for step in drafts_of(folder))]:
        kind = "checkpoint" if place.parent == folder else place.name
        remove(place.with_name(f".{place.name}.old"), kind)
        if is_draft(draft := place.with_name(f".{place.name}.tmp"), kind):
            discard(draft)
    for name in FILES:
        for draft in directory.glob(f".{name}{DRAFT}*.tmp"):
            draft.unlink()
    if is_empty(folder):
        folder.rmdir()
    for name, ours in ((TRAINED, is_result), (ERROR, is_signed)):
        if ours(directory / name):
            (directory / name).unlink()


def drafts_of(folder: Path) -> list[int]:
    """The steps of the checkpoints that were being written, or replaced, when a process was killed."""
    found = (re.fullmatch(r"\.step-(\d{8})\.(tmp|old)", path.name) for path in folder.glob(".step-*"))
    return sorted({int(each[1]) for each in found if each})


def is_result(path: Path) -> bool:
    """Whether a file is the record of a run."""
    try:
        return bool(Result.read(path))
    except UserError:
        return False


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a folder, oldest first."""
    there = folder.glob("step-*") if folder.is_dir() else ()
    return sorted(path for path in there if re.fullmatch(r"step-\d{8}", path.name))


def write_error(directory: Path, trace: str, command: str) -> None:
    """Record in its own folder that a cell failed; nothing in a folder that is not a run's."""
    if foreign(directory):
        return
    claim_run(directory)
    if (directory / ERROR).is_file() and not is_signed(directory / ERROR):
        put_aside(directory / ERROR)
    write_text(directory / ERROR, f"{command}\n# {WRITTEN}\n\n{trace}")
