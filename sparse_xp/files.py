"""Files and directories that are either whole or not there, and that are replaced only where they are our own."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from filelock import FileLock, Timeout

from sparse_xp.console import say
from sparse_xp.errors import UserError

#: in every directory that ``whole_directory`` wrote: the SHA-256 of each file, for ``sha256sum -c``
CHECKSUMS = "checksums.txt"
#: in every directory that is sparse_xp's own: ``{"sparse_xp": KIND}``
MARKER = ".sparse_xp"
#: in the name of a file that is being written
DRAFT = ".sparse_xp-"
#: what people edit, or publish: a copy is kept of what was changed since it was written
KEPT = ("model", "deployment")


# Whose it is


def claim(path: Path, ours: Callable[[Path], bool], way_out: str) -> Path:
    """The file or directory behind ``path``, which may be written and replaced.

    It may be if nothing is there, or what ``ours`` proves to be sparse_xp's own. Everything that sparse_xp replaces or
    removes goes through here or ``is_own``. Raises UserError, with the ``way_out``, for all else.
    """
    real = Path(os.path.realpath(path))
    if os.path.lexists(real) and not ours(real):
        raise UserError(f"{path} holds {contents(real)}, and is left as it is. {way_out}")
    return real


def contents(path: Path) -> str:
    """What a file or directory holds that may not be replaced, in words."""
    kind = marked(path)
    if kind == "run" or (kind and not unlisted(path)):
        return f"a {kind}"
    others = f" ({', '.join(unlisted(path)[:3])})" if kind else ""
    return f"what sparse_xp did not write{others}"


def is_own(path: Path, kind: str) -> bool:
    """Whether ``path`` is a directory that was written as ``kind``, with no file beside those that were."""
    return marked(path) == kind and not unlisted(path)


def marked(path: Path) -> str | None:
    """The kind that the marker in a directory says, None if there is none."""
    try:
        told = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return str(told["sparse_xp"]) if isinstance(told, dict) and "sparse_xp" in told else None


def mark(path: Path, kind: str) -> None:
    """Make the directory ``path`` sparse_xp's own."""
    write_text(path / MARKER, json.dumps({"sparse_xp": kind}) + "\n", kind)


def is_empty(path: Path) -> bool:
    """Whether ``path`` is a directory with nothing in it."""
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def may_fill(kind: str) -> Callable[[Path], bool]:
    """For ``claim``: an empty directory, or one of our own."""
    return lambda path: is_empty(path) or is_own(path, kind)


def is_draft(path: Path, kind: str) -> bool:
    """Whether a directory is what a writer of ``kind`` left that was killed: marked, or killed before it was."""
    if not path.is_dir() or path.is_symlink():
        return False
    return marked(path) == kind or all(each.name.startswith(f".{MARKER}{DRAFT}") for each in path.iterdir())


def remove(path: Path, kind: str) -> bool:
    """Remove a directory that is our own, and say whether it was."""
    if not is_own(path, kind):
        return False
    discard(path)
    return True


def discard(path: Path) -> None:
    """Remove a directory, if there is one, its marker last: what a killed process has half removed is still ours."""
    if not path.is_dir():
        return
    last = [path / CHECKSUMS, path / MARKER]
    for each in sorted(path.rglob("*"), reverse=True):  # what is in a directory before itself
        if each.is_dir() and not each.is_symlink():
            each.rmdir()
        elif each not in last:
            each.unlink()
    for each in last:
        each.unlink(missing_ok=True)
    path.rmdir()


#: in a file that people name the place of; a file that has it may be replaced by another
WRITTEN = "written by sparse_xp"
#: the bytes at each end of a file in which that is looked for
ENDS = 4000


def signed(text: str, before: str = "<!-- ", after: str = " -->") -> str:
    """``text`` with a last line, a comment, that says who wrote it and has its SHA-256."""
    return f"{text}{before}{WRITTEN}, sha256 {digest_of(text)}{after}\n"


def digest_of(text: str) -> str:
    """Sixty-four hex digits."""
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def is_signed(path: Path) -> bool:
    """Whether a file says that sparse_xp wrote it."""
    try:
        with path.open("rb") as file:
            first = file.read(ENDS)
            file.seek(max(0, path.stat().st_size - ENDS))
            return WRITTEN.encode() in first + file.read()
    except OSError:
        return False


def is_unchanged(path: Path) -> bool:
    """Whether the text before the signature of a file is what was signed."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return bool(lines) and digest_of("".join(lines[:-1])) in lines[-1]


def put_aside(path: Path) -> None:
    """Move a file that somebody has edited out of the way of the one that replaces it."""
    kept = free_name(path, "changed")
    os.rename(path, kept)
    say(f"{path} was changed since it was written: what was there is in {kept}")


def replace_signed(path: Path, text: str, before: str = "<!-- ", after: str = " -->") -> None:
    """``write_text`` of a signed ``text``; what somebody has edited since, or put there, stays beside it."""
    if path.is_file() and not (is_signed(path) and is_unchanged(path)):
        put_aside(path)
    write_text(path, signed(text, before, after))


def never(path: Path) -> bool:
    """For ``claim``: nothing that is there may be replaced."""
    return False


# Writing


def write_text(path: Path, text: str, kind: str = "") -> None:
    """Replace ``path`` at once: a reader sees the old text or the new, never half. ``kind``: see ``ROOM``."""
    # A name of a file may have bytes that are not UTF-8.
    write_bytes(path, text.encode(errors="backslashreplace"), kind)


def write_bytes(path: Path, data: bytes, kind: str = "") -> None:
    """The same for bytes."""
    # A name of its own, made here and nowhere else: one that is there already may be anybody's, or a link.
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


@contextmanager
def whole_directory(path: Path, kind: str, way_out: str = "Name another directory.") -> Iterator[Path]:
    """Give a directory to write into; it becomes ``path`` when the block ends well and vanishes when it does not.

    What it holds then is listed in ``checksums.txt``. A directory that is there already is replaced if it was written
    as the same ``kind``; of the kinds ``KEPT`` one with files that were changed since stays beside it. Raises UserError
    for any other directory, before the block begins.
    """
    claim(path, may_fill(kind), way_out)
    path = recover(path)
    draft, old = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")
    claim(draft, lambda place: is_draft(place, kind), "Move it away.")
    claim(old, may_fill(kind), "Move it away.")
    discard(draft)
    try:
        with explain_full_disk(path, kind):
            draft.mkdir(parents=True)
            mark(draft, kind)
            yield draft
            write_checksums(draft, kind)
            readable = draft.stat().st_mode & 0o666  # what the umask leaves; some libraries write for the owner alone
            for file in draft.rglob("*"):
                if file.is_file():
                    file.chmod(readable)
                    with file.open("rb") as opened:
                        os.fsync(opened.fileno())
            discard(old)
            # rename() does not replace a directory that has files, so the old one steps aside first.
            claim(path, may_fill(kind), way_out)  # again: the block may have taken hours
            changed = kind in KEPT and path.exists() and not is_empty(path) and bool(damage(path))
            aside = free_name(path, "changed") if changed else old
            if path.exists():
                os.rename(path, aside)
            if changed:
                say(f"{path} was changed since it was written: what was there is in {aside}")
            try:
                os.rename(draft, path)
            except OSError:
                if aside.exists():
                    os.rename(aside, path)
                raise
            discard(old)
    finally:
        discard(draft)


def recover(path: Path) -> Path:
    """The directory behind ``path``, in its place again if a writer was killed between its two renames."""
    path = Path(os.path.realpath(path))
    old = path.with_name(f".{path.name}.old")
    if not os.path.lexists(path) and marked(old):
        os.rename(old, path)
    return path


def free_name(path: Path, what: str) -> Path:
    """``NAME.what-1`` beside ``path``, or the first number that is free."""
    number = 1
    while os.path.lexists(found := path.with_name(f"{path.name}.{what}-{number}")):
        number += 1
    return found


@contextmanager
def one_at_a_time(path: Path, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold ``path`` against other processes until the block ends, or the process does; ``tell`` of waiting for one."""
    path = Path(os.path.realpath(path))  # one lock, whatever way the place is named
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


#: what to do about a full disk, by the kind of what was written
ROOM = {
    "cache": "Make room, or give data.cache= on another disk, and run the same command again to continue.",
    "run": (
        "The last whole checkpoint is kept: make room (or give hydra.run.dir= on another disk) and run the same "
        "command again to continue."
    ),
    "": "Make room, or name a place on another disk (hydra.run.dir= of a run, out= otherwise).",
}
#: kinds that only a run writes
ROOM |= dict.fromkeys(("checkpoint", "best"), ROOM["run"])


@contextmanager
def explain_full_disk(path: Path, kind: str = "") -> Iterator[None]:
    """Turn "no space left on device", however it is reported, into a message that says where and what to do."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # torch's zip writer and safetensors raise errors of their own, without the errno.
        if not full and not (not isinstance(error, UserError) and _free(path) < 1_000_000):
            raise
        raise UserError(f"No space left on the disk while writing {path}. {ROOM.get(kind, ROOM[''])}") from error


def _free(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def reserve(path: Path, size: int) -> None:
    """Give a file ``size`` bytes of disk before it is mapped into memory: a full disk is an error then, not SIGBUS."""
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        file.seek(0, os.SEEK_END)
        while (left := size - file.tell()) > 0:
            file.write(bytes(min(left, 1 << 24)))


# Checksums


def write_checksums(directory: Path, kind: str = "") -> None:
    """``checksums.txt``: every other file but the marker."""
    lines = [f"{sha256(directory / name)}  {name}\n" for name in files_in(directory)]
    write_text(directory / CHECKSUMS, "".join(lines), kind)


def read_checksums(directory: Path) -> dict[str, str]:
    """The digests by name. Raises OSError or ValueError for a file that is not there, or is not of that form."""
    found = {}
    for line in (directory / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise ValueError(f"the line {line[:80]!r} is not a digest and a name")
        if leads_out(name) or "\0" in name:
            raise ValueError(f"{name!r} is no name of a file in the folder")
        found[name] = digest
    return found


def leads_out(name: str) -> bool:
    """Whether a name, on any system, is one of a file outside of the directory that it is relative to."""
    return any(path.anchor or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name)))


def files_in(directory: Path) -> list[str]:
    """The names, from there, of all files but those that are about the others."""
    paths = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(directory).as_posix() for path in paths)
    return sorted(name for name in names if name not in (CHECKSUMS, MARKER))


def unlisted(directory: Path) -> list[str]:
    """The files that ``checksums.txt`` does not name. All of them where it cannot be read."""
    try:
        listed = read_checksums(directory)
    except (OSError, ValueError):
        listed = {}
    return [name for name in files_in(directory) if name not in listed]


def damage(directory: Path, needed: list[str] | None = None) -> str:
    """What is wrong with a directory that ``whole_directory`` wrote, in words; an empty string if nothing is.

    ``needed``: the files that must be listed, None for all that are there. A file that is listed must be as it was.
    """
    if not directory.is_dir():
        return "it is no directory"
    try:
        listed = read_checksums(directory)
    except (OSError, ValueError) as error:
        return f"{CHECKSUMS} {reason(error)}"
    if missing := [name for name in (files_in(directory) if needed is None else needed) if name not in listed]:
        return f"{CHECKSUMS} does not list {missing[0]}"
    for name, digest in listed.items():
        try:
            found = sha256(directory / name)
        except OSError as error:
            return f"{name} {reason(error)}"
        if found != digest:
            return f"{name} is not what was written (sha256)"
    return "" if listed else f"{CHECKSUMS} is empty"


def sha256(path: Path) -> str:
    """Sixty-four hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Reading


@contextmanager
def reading(path: Path, way_out: str = "") -> Iterator[None]:
    """Turn an error that the block has with the contents of ``path`` into a message that names it, and the way out."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} {reason(error)}.{way_out and f' {way_out}'}") from error


def reason(error: Exception) -> str:
    """Why a file could not be read or understood, as the end of a sentence that begins with its name."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "is missing"
    if isinstance(error, IsADirectoryError):
        return "is a directory, and should be a file"
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte {error.start})"
    if isinstance(error, json.JSONDecodeError):
        if not error.doc.strip():
            return "is empty"
        return f"is not JSON (line {error.lineno}, column {error.colno}: {error.msg})"
    if isinstance(error, RecursionError):
        return "is nested too deep"
    if isinstance(error, KeyError):
        return f"has no {error}"
    return f"is damaged ({(str(error) or type(error).__name__).splitlines()[0]})"


def read_whole(path: Path) -> str:
    """The text of a file. Raises ValueError for a pipe or a device, which might never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("it is no file on a disk")
    return path.read_text(encoding="utf-8")


def neighbours(path: Path) -> list[str]:
    """The names beside ``path``, which may not be there itself."""
    return [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []


def of_run(place: str) -> str:
    """Return the model directory of a run directory, and any other path as it is."""
    inner = Path(place) / "model"
    is_run = (inner / "config.json").is_file() and not (Path(place) / "config.json").is_file()
    return str(inner) if is_run else place


def digest(value: Any) -> str:
    """Sixteen hex digits that are the same for equal values on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
