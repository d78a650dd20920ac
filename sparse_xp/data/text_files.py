"""Read text files. Errors name the first line that is not text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparse_xp.data.encodings import check_single_bytes, decode, encoding_error, encoding_of, nul_error
from sparse_xp.data.foreign_files import check_beginning
from sparse_xp.data.limits import DEFAULT_LIMITS, Limits
from sparse_xp.errors import UserError
from sparse_xp.files.reading import check_file, explain_read_errors
from sparse_xp.files.text_format import RECOGNISED, TextFormat

#: a row by the names of its columns
Record = dict[str, Any]
#: a row, or the UserError of one that is none, and the lines where it begins: of a sentence those of its words; none
#: where the format has no lines
NumberedRecord = tuple[list[int], Any]


def read_text(
    path: Path, limits: Limits = DEFAULT_LIMITS, text_format: TextFormat = RECOGNISED, line_ends: bool = False
) -> str:
    """Return a text with line ends ``\\n``. Raises UserError, with the line, for a file that is not text.

    A carriage return ends a line only before a line feed, or in a file without line feeds.
    ``line_ends``: leave the carriage returns before line feeds, which may be part of a text in quotes.
    """
    check_file(path)
    with explain_read_errors(path):
        limits.check(path, 0, path.stat().st_size)
        data = path.read_bytes()
    check_beginning(path, data[:4000])
    text = decode(path, data, text_format)
    if "\n" not in text:
        return text.replace("\r", "\n")
    return text if line_ends else text.replace("\r\n", "\n")


def read_lines_lazily(path: Path, text_format: TextFormat = RECOGNISED) -> Iterator[str]:
    """Yield the lines of a text without reading it whole. Raises UserError as ``read_text`` does."""
    number = 0
    with explain_read_errors(path):
        with path.open("rb") as file:
            start = file.read(4000)
        check_beginning(path, start)
        encoding = encoding_of(start[:4], text_format)
        if encoding.startswith("utf-8") and b"\0" in start:
            raise nul_error(path, start.partition(b"\0")[0].count(b"\n") + 1, start, text_format)
        single = not encoding.startswith("utf")
        try:
            with path.open(encoding=encoding) as file:
                for number, line in enumerate(file, 1):
                    if "\0" in line:
                        raise nul_error(path, number, line.encode(), text_format)
                    if single and not line.isascii():
                        check_single_bytes(path, line.encode(encoding), line, encoding, text_format, number)
                    yield line.removeprefix("\ufeff") if number == 1 else line
        except UnicodeError as error:
            raise _bad_line(path, number, encoding, error, text_format) from error


def _bad_line(path: Path, number: int, encoding: str, error: UnicodeError, text_format: TextFormat) -> UserError:
    """Return the error for the first line that is not text; Python decodes blocks of a file, not lines."""
    if encoding.startswith("utf-8"):
        with path.open("rb") as file:
            for at, line in enumerate(file, 1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as exact:
                    return encoding_error(path, at, exact, line[exact.start :], text_format)
    return encoding_error(path, number + 1, error, b"", text_format)
