"""Write files atomically: a reader sees the old contents or the new, never half of them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparse_xp.errors import UserError

#: infix of the name of a file that is being written
DRAFT = ".sparse_xp-"


def write_text(path: Path, text: str, kind: str = "") -> None:
    """Replace ``path`` atomically by ``text``. ``kind``: what is written, a key of ``DISK_FULL_ADVICE``."""
    # The text may hold file names, which may have bytes that are not UTF-8.
    write_bytes(path, text.encode(errors="backslashreplace"), kind)


def write_bytes(path: Path, data: bytes, kind: str = "") -> None:
    """Replace ``path`` atomically by ``data``. ``kind``: see ``write_text``."""
    # A random name and mode "x": a file that exists under a fixed name may be anybody's, or a link.
    draft = path.with_name(f".{path.name}{DRAFT}{os.urandom(4).hex()}.tmp")
    try:
        with explain_full_disk(path, kind):
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


#: advice about a full disk, by the kind of what was written
DISK_FULL_ADVICE = {
    "cache": "Make room, or give data.cache= on another disk, and run the same command again to continue.",
    "run": (
        "The last whole checkpoint is kept: make room (or give hydra.run.dir= on another disk) and run the same "
        "command again to continue."
    ),
    "": "Make room, or name a place on another disk (hydra.run.dir= of a run, out= otherwise).",
}
#: kinds that only a run writes
DISK_FULL_ADVICE |= dict.fromkeys(("checkpoint", "best"), DISK_FULL_ADVICE["run"])


@contextmanager
def explain_full_disk(path: Path, kind: str = "") -> Iterator[None]:
    """Turn "no space left on device" into a UserError with the path and advice. ``kind``: see ``write_text``."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # torch's zip writer and safetensors raise errors of their own, without the errno.
        if not full and not (not isinstance(error, UserError) and _free_bytes(path) < 1_000_000):
            raise
        raise UserError(
            f"No space left on the disk while writing {path}. {DISK_FULL_ADVICE.get(kind, DISK_FULL_ADVICE[''])}"
        ) from error


def _free_bytes(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def reserve_space(path: Path, size: int) -> None:
    """Allocate ``size`` bytes of disk for a file that will be mapped into memory.

    A full disk is an error here; in a memory map it would be SIGBUS, which kills the process.
    """
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        file.seek(0, os.SEEK_END)
        while (left := size - file.tell()) > 0:
            file.write(bytes(min(left, 1 << 24)))
