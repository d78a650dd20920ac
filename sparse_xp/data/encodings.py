"""Decode the bytes of text files: UTF-8 without a mark, otherwise by the byte order mark, or as the user says."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
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
#: the encodings of Windows that have letters and quotes where those of ISO have control characters
OF_WINDOWS = {
    "iso8859-1": "cp1252",
    "iso8859-2": "cp1250",
    "iso8859-5": "cp1251",
    "iso8859-7": "cp1253",
    "iso8859-9": "cp1254",
    "iso8859-15": "cp1252",
}
#: control characters that no text has
CONTROLS = re.compile("[\x80-\x9f]")


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
    if not encoding.startswith("utf"):
        check_single_bytes(path, data, text, encoding, text_format)
    return text.removeprefix("\ufeff")


def check_single_bytes(
    path: Path, data: bytes, text: str, encoding: str, text_format: TextFormat, first_line: int = 1
) -> None:
    """Raise UserError for text that was decoded byte by byte, and is of another encoding by all appearances.

    ``first_line``: the number of the line where ``data`` and ``text`` begin.
    """
    if data.isascii() or len(text) != len(data):
        return
    told = f"{text_format.prefix}encoding="
    with suppress(UnicodeDecodeError):
        right = data.decode("utf-8-sig")
        line = right[: next(i for i, char in enumerate(right) if not char.isascii())].count("\n") + first_line
        raise UserError(
            f"{path}, line {line}: this file is UTF-8, not {encoding}. Leave {told} out, or save it in that encoding."
        )
    windows = OF_WINDOWS.get(codecs.lookup(encoding).name)
    if windows and (control := CONTROLS.search(text)):
        with suppress(UnicodeDecodeError):
            meant = control[0].encode("latin-1").decode(windows)
            line = text[: control.start()].count("\n") + first_line
            raise UserError(
                f"{path}, line {line}: a control character in {encoding}, which is {meant} in {windows}. Write "
                f"{told}{windows}."
            )


def nul_error(path: Path, line: int, data: bytes, text_format: TextFormat) -> UserError:
    """Return the error for a NUL byte; ``data``: bytes of the file, by which UTF-16 without a mark is told."""
    if likely := _likely_utf_16(data[:4000]):
        return UserError(
            f"{path}, line {line}: a NUL byte; it looks like UTF-16 without a byte order mark. Write "
            f"{text_format.prefix}encoding={likely}, or save it as UTF-8."
        )
    return UserError(f"{path}, line {line}: a NUL byte; it is damaged, or not UTF-8. Save it as UTF-8.")


def _likely_utf_16(start: bytes) -> str | None:
    """Return the kind of UTF-16 without a mark by which the first bytes of a file are text, None if they are not."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) > len(start) // 4:
        return "utf-16-le" if odd > even else "utf-16-be"
    for name in ("utf-16-le", "utf-16-be") if start else ():
        with suppress(UnicodeDecodeError):
            text = codecs.getincrementaldecoder(name)().decode(start)
            if all(char.isprintable() or char in "\r\n\t" for char in text):
                return name
    return None


def encoding_error(path: Path, line: int, error: UnicodeError, rest: bytes, text_format: TextFormat) -> UserError:
    """Return the error for bytes that are not of the encoding; ``rest``: what follows from the first of them."""
    reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
    if text_format.encoding is not None:
        return UserError(
            f"{path}, line {line}: not {text_format.encoding} ({reason}). Write another {text_format.prefix}encoding=, "
            "or leave it out for UTF-8."
        )
    if isinstance(error, UnicodeDecodeError) and not error.encoding.startswith("utf-8"):
        kind = "UTF-16" if "16" in error.encoding else "UTF-32"
        return UserError(
            f"{path}, line {line}: it begins as {kind}, and is not ({reason}). It is cut off or damaged: save it "
            "again, as UTF-8."
        )
    likely, named = "latin-1", "latin-1 (cp1252 on Windows)"
    if CONTROLS.search(rest.decode("latin-1")):
        likely, named = "cp1252", "cp1252 (if that is no text: cp1251, gbk, shift_jis or another)"
    told = f"Save it as UTF-8, or name its encoding with {text_format.prefix}encoding="
    try:
        rest.decode(likely)
    except UnicodeDecodeError:
        return UserError(f"{path}, line {line}: not UTF-8 ({reason}). {told} (such as gbk, shift_jis or mac_roman).")
    shown = shortened(rest[:SHOWN].partition(b"\n")[0].decode(likely).strip())
    return UserError(
        f"{path}, line {line}: not UTF-8 ({reason}). Save it as UTF-8, or name its encoding: it goes on with {shown!r} "
        f"in {text_format.prefix}encoding={named}."
    )


def _line_after(good: bytes, encoding: str) -> int:
    """Return the number of the line in which these bytes end."""
    return good.decode(encoding, errors="ignore").count("\n") + 1
