"""Read lists that were printed into a cell of CSV, as pandas (``['a', 'b']``) and numpy (``['a' 'b']``) print them."""

from __future__ import annotations

import re
import sys
from typing import Any

TEXT_IN_QUOTES = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
#: an item: a text in quotes, or a number or name; numpy 2 may print it as ``np.str_('a')`` or ``np.int64(0)``
ITEM = re.compile(
    rf"""{TEXT_IN_QUOTES}|np\.(?:str_|u?int\d+|float\d+)\(({TEXT_IN_QUOTES}|[^\s,\[\]'"()]+)\)|[^\s,\[\]'"]+""",
    re.DOTALL,
)
#: what stands between two items
GAP = re.compile(r"\s*,?\s*")
NUMBER = re.compile(r"[+-]?\d{1,18}|[+-]?(\d+\.\d*|\.\d+|\d+(?=e))(e[+-]?\d{1,3})?", re.IGNORECASE)
#: names of values in Python, JSON and numpy
NAMED = {
    "None": None,
    "null": None,
    "nan": None,
    "NaN": None,
    "True": True,
    "true": True,
    "False": False,
    "false": False,
    "np.True_": True,
    "np.False_": False,
}
#: what follows a backslash in a text, and the signs that these letters stand for; other signs stand for themselves
ESCAPE = re.compile(r"\\(x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|.)", re.DOTALL)
LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "\n": ""}


def parse_printed_list(cell: str) -> list[Any]:
    """Return the texts and numbers of a printed list. Commas or white space stand between its items, not both.

    Raises ValueError, as the end of a sentence that begins with the cell, for anything else.
    """
    text = cell.strip()
    if not (len(text) > 1 and text[0] == "[" and text[-1] == "]"):
        raise ValueError("is no list: expected one such as ['a', 'b']")
    body, items, at, commas = text[1:-1].strip(), [], 0, set[bool]()
    while at < len(body):
        found = ITEM.match(body, at)
        if not found:
            raise ValueError(f"is a list that cannot be read from {body[at : at + 20]!r} on")
        items.append(_value(found[1] or found[0]))
        gap = GAP.match(body, found.end())
        assert gap  # it matches nothing, too
        at = gap.end()
        if at < len(body):
            commas.add("," in gap[0])
        if at < len(body) and (not gap[0] or len(commas) > 1):
            raise ValueError(f"is a list without a separator before {body[at : at + 20]!r}")
    return items


def _value(item: str) -> str | float | None:
    """Return the value of one item. Raises ValueError for a bare word."""
    if item == "...":
        raise ValueError("is a list that was printed in part only, with ... in its middle")
    if item[0] in "'\"":
        try:
            # JSON writes a rare character as two halves; one half alone is no text.
            return ESCAPE.sub(_unescaped, item[1:-1]).encode("utf-16", "surrogatepass").decode("utf-16")
        except ValueError as error:
            raise ValueError(f"has {item[:20]}, which escapes half of a character, or none") from error
    if item in NAMED:
        return NAMED[item]
    if NUMBER.fullmatch(item):
        return int(item) if item.lstrip("+-").isdigit() else float(item)
    raise ValueError(f"has {item[:20]!r} without quotes: expected a list such as ['a', 'b']")


def _unescaped(escape: re.Match[str]) -> str:
    code = escape[1]
    return chr(min(int(code[1:], 16), sys.maxunicode + 1)) if len(code) > 1 else LETTERS.get(code, code)
