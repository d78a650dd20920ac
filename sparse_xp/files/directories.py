"""Write whole directories atomically: a reader sees the old directory or the new, never half of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparse_xp.console import say
from sparse_xp.files.checksums import find_damage, write_checksums
from sparse_xp.files.ownership import (
    check_replaceable,
    empty_or_own,
    free_name,
    is_draft,
    is_empty,
    read_marker,
    remove_tree,
    write_marker,
)
from sparse_xp.files.writing import explain_full_disk

#: kinds of directories that people edit or publish: an edited one is moved aside and not replaced
EDITABLE_KINDS = ("model", "deployment")


@contextmanager
def atomic_directory(path: Path, kind: str, way_out: str = "Name another directory.") -> Iterator[Path]:
    """Yield a draft directory to write into; it becomes ``path`` if the block succeeds and is removed if it fails.

    ``checksums.txt`` then lists all its files. A directory that exists at ``path`` is replaced if it was written as the
    same ``kind``. If its kind is one of ``EDITABLE_KINDS`` and files were changed, it is moved aside.

    Raises UserError, with the advice ``way_out``, for any other directory, before the block begins.
    """
    check_replaceable(path, empty_or_own(kind), way_out)
    path = restore_interrupted(path)
    draft, old = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")
    check_replaceable(draft, lambda directory: is_draft(directory, kind), "Move it away.")
    check_replaceable(old, empty_or_own(kind), "Move it away.")
    remove_tree(draft)  # of a process that was killed
    try:
        with explain_full_disk(path, kind):
            draft.mkdir(parents=True)
            write_marker(draft, kind)
            yield draft
            write_checksums(draft, kind)
            _flush(draft)
            remove_tree(old)
            check_replaceable(path, empty_or_own(kind), way_out)  # again: the block may have taken hours
            _replace(path, draft, old, kind)
    finally:
        remove_tree(draft)


def _flush(directory: Path) -> None:
    """Write the files of ``directory`` to the disk, and give them the permissions that the umask allows."""
    readable = directory.stat().st_mode & 0o666  # some libraries write files that only their owner can read
    for file in directory.rglob("*"):
        if file.is_file():
            file.chmod(readable)
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _replace(path: Path, draft: Path, old: Path, kind: str) -> None:
    """Rename ``draft`` to ``path``. An existing directory is removed (by way of ``old``), or moved aside if edited."""
    edited = kind in EDITABLE_KINDS and path.exists() and not is_empty(path) and bool(find_damage(path))
    aside = free_name(path, "changed") if edited else old
    # rename() does not replace a directory with files in it, so the old one is renamed first. A process that is killed
    # in between leaves ``old`` behind, which ``restore_interrupted`` puts back.
    if path.exists():
        os.rename(path, aside)
    if edited:
        say(f"{path} was changed since it was written: what was there is in {aside}")
    try:
        os.rename(draft, path)
    except OSError:
        if aside.exists():
            os.rename(aside, path)
        raise
    remove_tree(old)


def restore_interrupted(path: Path) -> Path:
    """Return the directory behind ``path``, put back if a writer was killed between its two renames."""
    path = Path(os.path.realpath(path))
    old = path.with_name(f".{path.name}.old")
    if not os.path.lexists(path) and read_marker(old):
        os.rename(old, path)
    return path
