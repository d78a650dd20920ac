"""What is kept to be made once: directories of a cache, checked whenever they are read and made again if damaged."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from sparse_xp.console import say
from sparse_xp.errors import UserError
from sparse_xp.files import damage, free_name, is_empty, is_own, one_at_a_time, recover, whole_directory

#: how a place says that it takes nothing
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def cached(path: Path, make: Callable[[Path], None]) -> bool:
    """Have ``path`` in a cache, written by ``make`` unless it is there and whole; returns whether it was.

    A damaged one is made again, with a line that says so. Another user's cache need not be writable if it has what is
    asked for. Raises UserError for a place that cannot be written.
    """
    if not (wrong := damage(recover(path))):
        return True
    try:
        with one_at_a_time(path):  # of several runs that want it at once the first makes it
            if not (wrong := damage(path)):
                return True
            if os.path.lexists(path) and not is_empty(path):
                step_aside(path, wrong)
            with whole_directory(path, "cache") as draft:
                make(draft)
    except OSError as error:
        if error.errno not in UNWRITABLE or not is_below(error.filename, path.parent):
            raise
        told = (error.strerror or str(error)).lower()
        raise UserError(f"{path} cannot be written ({told}). Give data.cache= a directory of your own.") from error
    return False


def is_below(name: object, folder: Path) -> bool:
    """Whether an error is about a file of the cache, or of a directory that it is in, and not of some other place."""
    place, folder = Path(os.path.realpath(str(name))), Path(os.path.realpath(folder))
    return place.is_relative_to(folder) or folder.is_relative_to(place)


def step_aside(path: Path, wrong: str) -> None:
    """Make room for what a damaged entry is to be replaced with: what is not provably the cache's own is kept."""
    if is_own(path, "cache"):
        say(f"{path} is damaged ({wrong}): it is made again")
        return
    kept = free_name(path, "damaged")
    os.rename(path, kept)
    say(f"{path} is damaged ({wrong}): it is made again, and what was there is in {kept}")
