"""The directory of a run: which files belong to it, whether a run may write there, and the state of its run.

``run.py`` claims the directory of one run; the sweep reads the states of many.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml

from sparse_xp.errors import UserError
from sparse_xp.files.checksums import MARKER
from sparse_xp.files.ownership import (
    empty_or_own,
    is_draft,
    is_empty,
    read_marker,
    remove_own,
    remove_tree,
    write_marker,
)
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.signed import SIGNATURE, is_signed, move_aside
from sparse_xp.files.writing import DRAFT, write_text
from sparse_xp.result import RESULT, TRAINED, Result

ERROR = "error.txt"
#: the files and directories that the run is made from (``inputs.py``)
INPUTS = "inputs.json"
#: the files that a run writes into its directory; trackers write others
FILES = (
    *(
        "config.yaml",
        "recipe.yaml",
        INPUTS,
        "history.jsonl",
        "latency.json",
        "wandb_id",
        "mlflow_id",
        "trackio_id",
        "metrics.csv",
        TRAINED,
        RESULT,
        "report.md",
        ERROR,
    ),
    "log.txt",
)
#: the directories in it that are written atomically; the kind of each is its name
DIRECTORIES = ("best", "model", "deployment", ".hydra")
CHECKPOINTS = "checkpoints"


def claim_run(directory: Path) -> None:
    """Mark ``directory`` as that of a run, unless it is one already.

    Raises UserError, before anything is written, if it has files of other origin where a run would write.
    """
    if kind := enclosing_kind(directory):
        raise UserError(
            f"{directory} is, or is inside of, a {kind} that sparse_xp keeps. Give this run a directory of its own "
            "with hydra.run.dir=."
        )
    if there := foreign_files(directory):
        raise UserError(
            f"{directory} has {', '.join(there)}, not written by a run of sparse_xp. Nothing there was changed. Give "
            "this run a directory of its own with hydra.run.dir=, or move what is there away."
        )
    if read_marker(directory) is None:
        directory.mkdir(parents=True, exist_ok=True)
        with explain_read_errors(directory / MARKER, "Move it away."):
            write_marker(directory, "run")


def enclosing_kind(path: Path) -> str | None:
    """Return the kind of the atomic directory that ``path`` is or is inside of; None if there is none."""
    real = Path(os.path.realpath(path))
    kinds = (read_marker(directory) for directory in (real, *real.parents))
    return next((kind for kind in kinds if kind not in (None, "run")), None)


def foreign_files(directory: Path) -> list[str]:
    """Return the names in ``directory`` that a run would overwrite and that no run has written."""
    if os.path.lexists(directory) and not directory.is_dir():
        return ["a file in its place"]
    others = [
        name for name in DIRECTORIES if os.path.lexists(path := directory / name) and not empty_or_own(name)(path)
    ]
    if is_run(directory):
        return others
    return [name for name in (*FILES, CHECKPOINTS) if os.path.lexists(directory / name)] + others


def is_run(directory: Path) -> bool:
    """Return whether a directory is that of a run: by its marker, or, for earlier versions, by its configuration."""
    if (kind := read_marker(directory)) or not (directory / "config.yaml").is_file():
        return kind == "run"
    try:
        return re.fullmatch("[0-9a-f]{10}", stored_hash(directory)) is not None
    except UserError:
        return False


def unclaim_run(directory: Path) -> None:
    """Remove the marker of a run that never began, and its directory if it is empty then."""
    names = (*FILES, *DIRECTORIES, CHECKPOINTS)
    if read_marker(directory) == "run" and not any(os.path.lexists(directory / name) for name in names):
        (directory / MARKER).unlink()
    if is_empty(directory):
        directory.rmdir()


def stored_hash(directory: Path) -> str:
    """Return the configuration hash in ``config.yaml``. Raises UserError if the file is missing or damaged."""
    path = directory / "config.yaml"
    with explain_read_errors(path, f"Restore it, or move {directory} away: the same command makes the run again."):
        return str(yaml.safe_load(path.read_text(encoding="utf-8"))["config_hash"])


def has_begun(directory: Path) -> bool:
    """Return whether a run has written any results, checkpoints or history."""
    return any((directory / name).exists() for name in (RESULT, CHECKPOINTS, "best", "history.jsonl"))


def run_state(directory: Path, config_hash: str) -> str:
    """Return the state of a run: ``finished``, ``failed``, ``interrupted`` or ``to do``.

    ``foreign``: the directory holds a run of another configuration, or files that no run wrote.
    """
    if has_begun(directory) and is_run(directory) and stored_hash(directory) == config_hash:
        if (directory / RESULT).exists():
            return "finished"
    elif has_begun(directory):
        return "foreign"
    if foreign_files(directory):
        return "foreign"
    if (directory / ERROR).exists():
        return "failed"
    return "interrupted" if has_begun(directory) else "to do"


def find_finished(directory: Path, config_hash: str) -> Result | None:
    """Return the result in ``directory`` if its run is finished, else None.

    Raises UserError if the directory holds a run of another configuration; ``identity.run_hash`` says how they differ.
    """
    if not is_run(directory):
        return None
    if has_begun(directory) and (theirs := stored_hash(directory)) != config_hash:
        raise UserError(f"{directory} holds a run of another configuration ({theirs}, this one is {config_hash}).")
    path = directory / RESULT
    return Result.read(path) if os.path.lexists(path) else None


def remove_temporary_files(directory: Path) -> None:
    """Remove what only an unfinished run needs, and the error message of an earlier attempt."""
    remove_own(directory / "best", "best")
    folder = directory / CHECKPOINTS
    for checkpoint in checkpoints(folder):
        remove_own(checkpoint, "checkpoint")
    for path, kind in [*((directory / name, name) for name in DIRECTORIES), *_interrupted_checkpoints(folder)]:
        remove_own(path.with_name(f".{path.name}.old"), kind)
        if is_draft(draft := path.with_name(f".{path.name}.tmp"), kind):
            remove_tree(draft)
    for name in FILES:
        for draft in directory.glob(f".{name}{DRAFT}*.tmp"):
            draft.unlink()
    if is_empty(folder):
        folder.rmdir()
    for name, ours in ((TRAINED, _is_result), (ERROR, is_signed)):
        if ours(directory / name):
            (directory / name).unlink()


def _interrupted_checkpoints(folder: Path) -> list[tuple[Path, str]]:
    """Return the places, and kinds, of checkpoints that were being written or replaced when a process was killed."""
    drafts = [*folder.glob(".*.tmp"), *folder.glob(".*.old")]
    places = {path.with_name(path.name[1:].rpartition(".")[0]) for path in drafts}
    kept = [(path, "model") for path in places if is_kept_model(path)]
    return [*kept, *((path, "checkpoint") for path in places if re.fullmatch(r"step-\d{8}", path.name))]


def _is_result(path: Path) -> bool:
    """Return whether a file is the result of a run."""
    try:
        return bool(Result.read(path))
    except UserError:
        return False


def is_kept_model(path: Path) -> bool:
    """Return whether ``path`` has the name of a model that ``train.keep_checkpoints`` keeps."""
    return re.fullmatch(r"epoch-\d+(\.\d+)?|step-\d{1,7}", path.name) is not None


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints for resuming in a folder, oldest first, without drafts."""
    paths = folder.glob("step-*") if folder.is_dir() else ()
    return sorted(path for path in paths if re.fullmatch(r"step-\d{8}", path.name))


def write_error(directory: Path, trace: str, command: str) -> None:
    """Write the traceback of a failed cell into its directory, unless the directory holds files of other origin."""
    if foreign_files(directory):
        return
    claim_run(directory)
    if (directory / ERROR).is_file() and not is_signed(directory / ERROR):
        move_aside(directory / ERROR)
    write_text(directory / ERROR, f"{command}\n# {SIGNATURE}\n\n{trace}")
