"""Checksums of the files in a directory, in the format of ``sha256sum``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath, PureWindowsPath

from sparse_xp.files.reading import describe_read_error
from sparse_xp.files.writing import write_text

#: name of the list, in every directory that ``atomic_directory`` wrote: the SHA-256 of each file, for ``sha256sum -c``
CHECKSUMS = "checksums.txt"
#: name of the marker, in every directory of sparse_xp: ``{"sparse_xp": KIND}``; it is not listed
MARKER = ".sparse_xp"


def write_checksums(directory: Path, kind: str = "") -> None:
    """Write ``checksums.txt`` for all files of ``directory``. ``kind``: see ``writing.DISK_FULL_ADVICE``."""
    lines = [f"{file_sha256(directory / name)}  {name}\n" for name in list_files(directory)]
    write_text(directory / CHECKSUMS, "".join(lines), kind)


def read_checksums(directory: Path) -> dict[str, str]:
    """Return the digests by file name. Raises OSError or ValueError for a list that is missing or malformed."""
    digests = {}
    for line in (directory / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise ValueError(f"the line {line[:80]!r} is not a digest and a name")
        if escapes_directory(name) or "\0" in name:
            raise ValueError(f"{name!r} is no name of a file in the folder")
        digests[name] = digest
    return digests


def escapes_directory(name: str) -> bool:
    """Return whether a relative name leads out of its directory, on Linux or Windows."""
    return any(path.anchor or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name)))


def list_files(directory: Path) -> list[str]:
    """Return the relative names of all files below ``directory``, without the list and the marker."""
    paths = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(directory).as_posix() for path in paths)
    return sorted(name for name in names if name not in (CHECKSUMS, MARKER))


def unlisted_files(directory: Path) -> list[str]:
    """Return the files that ``checksums.txt`` does not name; all of them if it cannot be read."""
    try:
        listed = read_checksums(directory)
    except (OSError, ValueError):
        listed = {}
    return [name for name in list_files(directory) if name not in listed]


def find_damage(directory: Path, needed: list[str] | None = None) -> str:
    """Return what is wrong with a directory that ``atomic_directory`` wrote, or an empty string.

    ``needed``: the files that must be listed; None for all that exist. A listed file must have its listed digest.
    """
    if not directory.is_dir():
        return "it is no directory"
    try:
        listed = read_checksums(directory)
    except (OSError, ValueError) as error:
        return f"{CHECKSUMS} {describe_read_error(error)}"
    if missing := [name for name in (list_files(directory) if needed is None else needed) if name not in listed]:
        return f"{CHECKSUMS} does not list {missing[0]}"
    for name, digest in listed.items():
        try:
            actual = file_sha256(directory / name)
        except OSError as error:
            return f"{name} {describe_read_error(error)}"
        if actual != digest:
            return f"{name} is not what was written (sha256)"
    return "" if listed else f"{CHECKSUMS} is empty"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_stamp(paths: list[Path]) -> str:
    """Return a digest of names, sizes and times. While it stays the same, so do the contents. Raises OSError."""
    stats = [(str(path), path.stat()) for path in paths]
    return json_digest([(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats])


def json_digest(value: object) -> str:
    """Return 16 hex digits, the same for equal JSON values on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def text_digest(text: str) -> str:
    """Return the SHA-256 of a text as 64 hex digits."""
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
