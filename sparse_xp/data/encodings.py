"""Decode the bytes of text files: UTF-8 without a mark, otherwise by the byte order mark, or as the user says."""

from __future__ import annotations

import codecs
from pathlib import Path

from sparse_xp.errors import UserError, shortened
from sparse_xp.files.text_format import TextFormat

#: encodings by the mark at the beginning of a file; the mark of UTF-32 begins with that of UTF-16
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: the most characters of a line that a message shows
SHOWN = 60


def encoding_of(start: bytes, text_format: TextFormat) -> str:
    """Return the encoding of a file that begins with these bytes."""
    marked = next((name for mark, name in MARKS if start.startswith(mark)), "utf-8")
    given = text_format.encoding
    if given is None:
        return marked
    # The mark is no text: Python keeps it for ``utf-8`` and ``utf-16-le``.
    name = codecs.lookup(given).name
    return marked if marked.startswith(name) or name.startswith(marked) else given


def decode(path: Path, data: bytes, text_format: TextFormat) -> str:
    """Return the text of a file. Raises UserError, with the line, for bytes that are no text."""
    encoding = encoding_of(data[:4], text_format)
    nul = data.find(b"\0") if encoding.startswith("utf-8") else -1
    if nul >= 0:
        raise nul_error(path, data[:nul].count(b"\n") + 1, data, text_format)
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        good = data[: error.start] if isinstance(error, UnicodeDecodeError) else b""
        raise encoding_error(path, _line_after(good, encoding), error, data[len(good) :], text_format) from error
    if "\0" in text:
        raise nul_error(path, text[: text.index("\0")].count("\n") + 1, b"", text_format)
    return text.removeprefix("\ufeff")


def nul_error(path: Path, line: int, data: bytes, text_format: TextFormat) -> UserError:
    """Return the error for a NUL byte; ``data``: bytes of the file, by which UTF-16 without a mark is told."""
    even, odd = data[:4000:2].count(0), data[1:4000:2].count(0)
    if max(even, odd) > len(data[:4000]) // 4:
        likely = "utf-16-le" if odd > even else "utf-16-be"
        return UserError(
            f"{path}, line {line}: a NUL byte; it looks like UTF-16 without a byte order mark. Write "
            f"{text_format.prefix}encoding={likely}, or save it as UTF-8."
        )
    return UserError(f"{path}, line {line}: a NUL byte; it is damaged, or not UTF-8. Save it as UTF-8.")


def encoding_error(path: Path, line: int, error: UnicodeError, rest: bytes, text_format: TextFormat) -> UserError:
    """Return the error for bytes that are not of the encoding; ``rest``: what follows from the first of them."""
    reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
    if text_format.encoding is not None:
        return UserError(
            f"{path}, line {line}: not {text_format.encoding} ({reason}). Write another {text_format.prefix}encoding=, "
            "or leave it out for UTF-8."
        )
    shown = shortened(rest[:SHOWN].partition(b"\n")[0].decode("latin-1").strip())
    return UserError(
        f"{path}, line {line}: not UTF-8 ({reason}). Save it as UTF-8, or name its encoding: it goes on with {shown!r} "
        f"in {text_format.prefix}encoding=latin-1 (cp1252 on Windows)."
    )


def _line_after(good: bytes, encoding: str) -> int:
    """Return the number of the line in which these bytes end."""
    return good.decode(encoding, errors="ignore").count("\n") + 1
