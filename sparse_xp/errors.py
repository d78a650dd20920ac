"""The error that users read, and helpers for its message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from unicodedata import normalize

from hydra.errors import CompactHydraException

#: the most characters of a message; a name or a list from an untrusted file may have millions
MAX_LENGTH = 2000


class UserError(CompactHydraException):
    """An error that the user can correct: the message says what is wrong, where, and what to write instead.

    Commands print it without a traceback (``error_report``); ``HYDRA_FULL_ERROR=1`` shows the traceback.
    """

    def __init__(self, message: str):
        super().__init__(shortened(message))


def shortened(text: str, most: int = MAX_LENGTH) -> str:
    """Return ``text`` without control characters, and with its middle cut out if it is longer than ``most``."""
    text = "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text[: 100 * most])
    if len(text) <= most:
        return text
    head, tail = most * 3 // 4, most // 4
    return f"{text[:head]} [... {len(text) - head - tail:,} characters ...] {text[-tail:]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest of ``known``, or an empty string when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if near and near[0] != name and normalize("NFC", near[0]) == normalize("NFC", name):
        return f" '{near[0]}' looks the same, and has other characters of Unicode: write both in the form NFC."
    return f" Did you mean '{near[0]}'?" if near else ""


def check_one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ValueError, with the nearest known name, unless ``value`` is one of ``known``."""
    if value not in known:
        raise ValueError(f"{key}={value}: expected one of {', '.join(known)}.{did_you_mean(value, known)}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without its full stop, as a part of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
