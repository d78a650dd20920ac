"""Lock a path, so that only one process at a time works on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def file_lock(path: Path, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of ``path`` until the block ends; the system releases it if the process is killed.

    ``tell``: called with a message before waiting for another process.
    """
    path = Path(os.path.realpath(path))  # one lock for all names of a path
    folder = path.parent / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{path.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if tell:
            tell(f"{path}: another process is at work on it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
