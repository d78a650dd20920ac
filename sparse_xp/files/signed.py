"""Sign files that people edit, so that an edited one is moved aside and never overwritten."""

from __future__ import annotations

import os
from pathlib import Path

from sparse_xp.console import say
from sparse_xp.files.checksums import text_digest
from sparse_xp.files.ownership import free_name
from sparse_xp.files.writing import write_text

#: the signature, in files whose paths people choose; a file that has it may be replaced
SIGNATURE = "written by sparse_xp"
#: number of bytes at each end of a file in which the signature is looked for
SEARCHED_BYTES = 4000


def sign_text(text: str, before: str = "<!-- ", after: str = " -->") -> str:
    """Return ``text`` with a signature as its last line: a comment with the SHA-256 of the text."""
    return f"{text}{before}{SIGNATURE}, sha256 {text_digest(text)}{after}\n"


def is_signed(path: Path) -> bool:
    """Return whether a file has the signature of sparse_xp."""
    try:
        with path.open("rb") as file:
            first = file.read(SEARCHED_BYTES)
            file.seek(max(0, path.stat().st_size - SEARCHED_BYTES))
            return SIGNATURE.encode() in first + file.read()
    except OSError:
        return False


def has_valid_signature(path: Path) -> bool:
    """Return whether the text before the signature is unchanged."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return bool(lines) and text_digest("".join(lines[:-1])) in lines[-1]


def move_aside(path: Path) -> None:
    """Rename a file that somebody has edited, and print its new name."""
    kept = free_name(path, "changed")
    os.rename(path, kept)
    say(f"{path} was changed since it was written: what was there is in {kept}")


def replace_signed(path: Path, text: str, before: str = "<!-- ", after: str = " -->") -> None:
    """Write ``text`` with a signature to ``path``; a file there that is edited or not ours is moved aside."""
    if path.is_file() and not (is_signed(path) and has_valid_signature(path)):
        move_aside(path)
    write_text(path, sign_text(text, before, after))
