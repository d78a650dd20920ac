"""Entries of a cache: directories that are written once, verified whenever they are read, rewritten if damaged."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from sparse_xp.console import say
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import find_damage
from sparse_xp.files.directories import atomic_directory, restore_interrupted
from sparse_xp.files.locks import file_lock
from sparse_xp.files.ownership import free_name, is_empty, is_own

#: error numbers of a path that cannot be written
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def ensure_cached(path: Path, make: Callable[[Path], None]) -> bool:
    """Write the cache entry ``path`` with ``make`` unless it exists undamaged; return whether it did (a cache hit).

    A damaged entry is rewritten, and a line says so. A hit needs read access only: the cache may be another user's.
    Raises UserError for a path that cannot be written.
    """
    if not (wrong := find_damage(restore_interrupted(path))):
        return True
    try:
        with file_lock(path):  # of several runs that need it at once the first writes it
            if not (wrong := find_damage(path)):
                return True
            if os.path.lexists(path) and not is_empty(path):
                _move_damaged_aside(path, wrong)
            with atomic_directory(path, "cache") as draft:
                make(draft)
    except OSError as error:
        if error.errno not in _UNWRITABLE or not _concerns_cache(error.filename, path.parent):
            raise
        cause = (error.strerror or str(error)).lower()
        raise UserError(f"{path} cannot be written ({cause}). Give data.cache= a directory of your own.") from error
    return False


def _concerns_cache(name: object, folder: Path) -> bool:
    """Return whether the path of an error is in the cache or above it, and not somewhere else."""
    path, folder = Path(os.path.realpath(str(name))), Path(os.path.realpath(folder))
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def _move_damaged_aside(path: Path, wrong: str) -> None:
    """Move a damaged entry aside, unless it is provably the cache's own and can be overwritten."""
    if is_own(path, "cache"):
        say(f"{path} is damaged ({wrong}): it is made again")
        return
    kept = free_name(path, "damaged")
    os.rename(path, kept)
    say(f"{path} is damaged ({wrong}): it is made again, and what was there is in {kept}")
