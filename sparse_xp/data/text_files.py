"""Read text files. Errors name the first line that is not text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparse_xp.data.limits import DEFAULT_LIMITS, Limits
from sparse_xp.errors import UserError
from sparse_xp.files.reading import check_file, explain_read_errors

#: a row by the names of its columns
Record = dict[str, Any]


def read_text(path: Path, limits: Limits = DEFAULT_LIMITS) -> str:
    """Return a UTF-8 text with line ends ``\\n``. Raises UserError, with the line, for a file that is not text."""
    check_file(path)
    with explain_read_errors(path):
        limits.check(path, 0, path.stat().st_size)
        data = path.read_bytes()
    nul = data.find(b"\0")
    if nul >= 0:
        raise _nul_error(path, data[:nul].count(b"\n") + 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _encoding_error(path, error.object[: error.start].count(b"\n") + 1, error) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines_lazily(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text without reading it whole. Raises UserError as ``read_text`` does."""
    with explain_read_errors(path):
        try:
            with path.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if "\0" in line:
                        raise _nul_error(path, number)
                    yield line
        except UnicodeDecodeError as error:
            raise _encoding_error(path, _first_bad_line(path), error) from error


def _nul_error(path: Path, line: int) -> UserError:
    return UserError(f"{path}, line {line}: a NUL byte; it is damaged, or not UTF-8. Save it as UTF-8.")


def _encoding_error(path: Path, line: int, error: UnicodeDecodeError) -> UserError:
    return UserError(f"{path}, line {line}: not UTF-8 ({error.reason}). Save it as UTF-8.")


def _first_bad_line(path: Path) -> int:
    """Return the number of the first line that is not UTF-8; Python decodes blocks of a file, not lines."""
    with path.open("rb") as file:
        return next(number for number, line in enumerate(file, 1) if not _is_utf8(line))


def _is_utf8(data: bytes) -> bool:
    """Return whether ``data`` is UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
