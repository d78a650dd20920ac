"""Files and directories that are either whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sparse_xp.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` at once: a reader sees the old text or the new, never half."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with explain_full_disk(path):
            with draft.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Give a directory to write into; it becomes ``path`` when the block ends well and vanishes when it does not."""
    draft, old = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")
    shutil.rmtree(draft, ignore_errors=True)
    if old.exists() and not path.exists():  # a writer was killed between the two renames below
        os.rename(old, path)
    try:
        with explain_full_disk(path):
            draft.mkdir(parents=True)
            yield draft
            readable = draft.stat().st_mode & 0o666  # what the umask leaves; some libraries write for the owner alone
            for file in draft.rglob("*"):
                if file.is_file():
                    file.chmod(readable)
                    with file.open("rb") as opened:
                        os.fsync(opened.fileno())
            if path.exists():
                # rename() does not replace a directory that has files, so the old one steps aside first.
                shutil.rmtree(old, ignore_errors=True)
                os.rename(path, old)
                try:
                    os.rename(draft, path)
                except OSError:
                    os.rename(old, path)
                    raise
                shutil.rmtree(old)
            else:
                os.rename(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def one_at_a_time(path: Path, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold ``path`` against other processes until the block ends, or the process does; ``tell`` of waiting for one."""
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


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space left on device", however it is reported, into a message that says where and what to do."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # torch's zip writer and safetensors raise errors of their own, without the errno.
        if not full and not (not isinstance(error, UserError) and _free(path) < 1_000_000):
            raise
        raise UserError(
            f"No space left on the disk while writing {path}. The last whole checkpoint is kept: make room (or give "
            "hydra.run.dir= on another disk) and run the same command again to continue."
        ) from error


def _free(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def neighbours(path: Path) -> list[str]:
    """The names beside ``path``, which may not be there itself."""
    return [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []


def of_run(place: str) -> str:
    """The model directory of a finished run's directory; any other place as it is."""
    run = Path(place)
    return str(run / "model") if (run / "model").is_dir() and (run / "result.json").is_file() else place
