"""Check paths that a program gives, before anything is computed or written."""

from __future__ import annotations

import os
from pathlib import Path

from sparse_xp.errors import UserError

#: the longest ending that a draft, a lock or an old version has beside a path
ROOM = ".changed-00"


def checked_path(name: str, value: object) -> Path:
    """Return the argument ``name`` as a path. Raises UserError for a value that is none."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise UserError(f"{name}={value!r}: expected a path, as a text or a pathlib.Path.")
    if "\0" in text:
        raise UserError(f"{name}={text!r}: no file can have this name, which holds a null character.")
    return Path(text)


def check_creatable(name: str, path: Path) -> None:
    """Raise UserError if the argument ``name`` is a directory that the system cannot make.

    That is one below a file, one with too long a name, and one where nothing may be written. Nothing is made here.
    """
    real = Path(os.path.realpath(path))
    if not real.name:
        raise UserError(f"{name}={path}: the root of the disk cannot be written as a whole. Name a directory in it.")
    for place in (real / "file", real.with_name(f".{real.name}{ROOM}")):
        try:
            os.lstat(place)
        except FileNotFoundError:
            continue
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UserError(f"{name}={path}: {why}. Name another directory.") from error
    nearest = next(each for each in (real, *real.parents) if each.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{name}={path}: nothing may be written into {nearest}. Name another directory.")
