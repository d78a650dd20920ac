"""How a text file of rows is written: its encoding and, for separated columns, separator and quoting."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, fields

from sparse_xp.errors import check_one_of

#: names of separators, which need no quoting on a command line
SEPARATORS = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "\\t": "\t",
    "pipe": "|",
    "bar": "|",
    "space": " ",
    "colon": ":",
}
#: encodings of Python that are none of a text: of names of hosts, and of literals
NO_TEXT = ("idna", "punycode", "unicode-escape", "raw-unicode-escape")
#: quoting in the terms of Python's module csv; a reader need not tell ``minimal`` from ``all``
QUOTINGS = ("minimal", "all", "none")


@dataclass(frozen=True)
class TextFormat:
    """How text files are to be read; None: recognised from the file.

    ``separator``: one character between two columns. ``quoting``: one of ``QUOTINGS``. ``encoding``: as Python names
    it. ``prefix``: stands before the keys in messages, as in ``data.separator=``.
    Raises ValueError for values that no file can have.
    """

    separator: str | None = None
    quoting: str | None = None
    encoding: str | None = None
    prefix: str = "data."

    def __post_init__(self) -> None:
        if self.separator is not None:
            object.__setattr__(self, "separator", SEPARATORS.get(self.separator.lower(), self.separator))
            if len(self.separator) != 1 or self.separator.isalnum() or self.separator in "\"'\r\n\\_":
                raise ValueError(
                    f"{self.prefix}separator={self.separator!r}: expected comma, semicolon, tab, pipe, space, or "
                    "another sign that separates two columns."
                )
        if self.quoting is not None:
            check_one_of(f"{self.prefix}quoting", self.quoting, QUOTINGS)
        if self.encoding is not None and not _is_text_encoding(self.encoding):
            raise ValueError(
                f"{self.prefix}encoding={self.encoding}: expected an encoding of texts, such as utf-8, utf-16, latin-1 "
                "or cp1252."
            )

    @property
    def given(self) -> dict[str, str]:
        """The options that are not to be recognised, by name."""
        options = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "prefix"}
        return {name: value for name, value in options.items() if value is not None}

    def without(self, names: set[str]) -> TextFormat:
        """Return the options except those of these names, which are recognised."""
        kept = {name: value for name, value in self.given.items() if name not in names}
        return TextFormat(**kept, prefix=self.prefix)


#: everything recognised from the file
RECOGNISED = TextFormat()


def _is_text_encoding(name: str) -> bool:
    """Return whether Python knows this encoding, and it is one of texts and lines (``rot13`` and ``idna`` are none)."""
    try:
        known = codecs.lookup(name).name.replace("_", "-") not in NO_TEXT
        return known and "a;1\n".encode(name).decode(name) == "a;1\n"
    except (LookupError, ValueError):
        return False
