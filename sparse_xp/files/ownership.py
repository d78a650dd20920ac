"""Decide what sparse_xp may replace or remove: only what it wrote itself.

A directory of ours has a marker, ``{"sparse_xp": KIND}``, and a list of checksums. An unlisted file belongs to the
user; the directory is then never replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from sparse_xp.errors import UserError
from sparse_xp.files.checksums import CHECKSUMS, MARKER, unlisted_files
from sparse_xp.files.writing import DRAFT, write_text


def check_replaceable(path: Path, ours: Callable[[Path], bool], way_out: str) -> Path:
    """Return the file or directory behind ``path`` if sparse_xp may write or replace it.

    It may if ``path`` does not exist, or if ``ours`` proves that sparse_xp wrote it. Call this function or ``is_own``
    before anything is replaced or removed. Raises UserError, with the advice ``way_out``, otherwise.
    """
    real = Path(os.path.realpath(path))
    if os.path.lexists(real) and not ours(real):
        raise UserError(f"{path} holds {describe_contents(real)}, and is left as it is. {way_out}")
    return real


def describe_contents(path: Path) -> str:
    """Describe what a file or directory holds that may not be replaced, for a message."""
    kind = read_marker(path)
    if kind == "run" or (kind and not unlisted_files(path)):
        return f"a {kind}"
    others = f" ({', '.join(unlisted_files(path)[:3])})" if kind else ""
    return f"what sparse_xp did not write{others}"


def is_own(path: Path, kind: str) -> bool:
    """Return whether ``path`` is a directory that was written as ``kind`` and to which no file was added."""
    return read_marker(path) == kind and not unlisted_files(path)


def read_marker(path: Path) -> str | None:
    """Return the kind in the marker of a directory; None without a valid marker."""
    try:
        marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return str(marker["sparse_xp"]) if isinstance(marker, dict) and "sparse_xp" in marker else None


def write_marker(path: Path, kind: str) -> None:
    """Mark the directory ``path`` as written by sparse_xp."""
    write_text(path / MARKER, json.dumps({"sparse_xp": kind}) + "\n", kind)


def is_empty(path: Path) -> bool:
    """Return whether ``path`` is an empty directory."""
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def empty_or_own(kind: str) -> Callable[[Path], bool]:
    """Return a predicate for ``check_replaceable``: the directory is empty or was written as ``kind``."""
    return lambda path: is_empty(path) or is_own(path, kind)


def never_replace(path: Path) -> bool:
    """Return False, as a predicate for ``check_replaceable``: an existing file is never replaced."""
    return False


def is_draft(path: Path, kind: str) -> bool:
    """Return whether a directory is the draft of a killed writer of ``kind``, which may have no marker yet."""
    if not path.is_dir() or path.is_symlink():
        return False
    return read_marker(path) == kind or all(each.name.startswith(f".{MARKER}{DRAFT}") for each in path.iterdir())


def remove_own(path: Path, kind: str) -> bool:
    """Remove a directory if it was written as ``kind``; return whether it was removed."""
    if not is_own(path, kind):
        return False
    remove_tree(path)
    return True


def remove_tree(path: Path) -> None:
    """Remove a directory if it exists; its marker last, so that a half-removed directory is still known as ours."""
    if not path.is_dir():
        return
    last = [path / CHECKSUMS, path / MARKER]
    for child in sorted(path.rglob("*"), reverse=True):  # the contents of a directory before the directory
        if child.is_dir() and not child.is_symlink():
            child.rmdir()
        elif child not in last:
            child.unlink()
    for file in last:
        file.unlink(missing_ok=True)
    path.rmdir()


def free_name(path: Path, what: str) -> Path:
    """Return ``NAME.what-N`` beside ``path`` with the first number that is free."""
    number = 1
    while os.path.lexists(free := path.with_name(f"{path.name}.{what}-{number}")):
        number += 1
    return free
