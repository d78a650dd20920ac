"""Read sentences from CoNLL text: a word in the first column of a line, its tag in the last."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sparse_xp.data.text_files import NumberedRecord
from sparse_xp.errors import UserError
from sparse_xp.files.text_format import TextFormat

#: what ends in a tag of a scheme; a line that begins with ``#`` and does not is a comment
TAGGED = re.compile(r"(.*[ \t])?(O|[BIOLUESMW]-\S+)")
BLANKS = re.compile(r"[ \t]+")
#: the lines around a document of CoNLL-2012
PART = re.compile(r"#(begin|end) document\b")


def read_conll(path: Path, text: str, arrow: bool, text_format: TextFormat) -> list[NumberedRecord]:
    """Return the sentences of CoNLL text; a blank line ends one.

    Columns are cut at tabs if every line has one, else at blanks and tabs, and at nothing else: a word may hold a
    no-break space. Lines of ``-DOCSTART-`` and comments (``# id 5``) end a sentence or stand before it.
    """
    raw = text.split("\n")
    lines = [line.strip(" \t") for line in raw]
    data = [line for line in lines if line and not line.startswith(("#", "-DOCSTART-"))]
    split = _splitter(data, text_format)
    width = max(Counter(len(split(line)) for line in data).items(), key=lambda item: item[1], default=(0, 0))[0]
    records: list[NumberedRecord] = []
    numbers: list[int] = []
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        fields = split(line) if line else []
        if not fields or fields[0] == "-DOCSTART-":
            if words:
                records.append((numbers, {"tokens": words, "tags": tags}))
                numbers, words, tags = [], [], []
        elif not _is_comment(line, fields, width, inside=bool(words)):
            if len(fields) < 2 or not fields[0] or raw[number - 1].startswith("\t"):
                raise UserError(f"{path}, line {number}: {_incomplete(fields, raw[number - 1])}.")
            if len(fields) != width:
                raise UserError(
                    f"{path}, line {number}: {len(fields)} columns, and most lines have {width}. Write a word and its "
                    "tag in each line, with as many columns between them."
                )
            numbers.append(number)
            words.append(fields[0])
            tags.append(fields[-1])
    return records


def _splitter(lines: list[str], text_format: TextFormat) -> Callable[[str], list[str]]:
    """Return the function that cuts a line into columns."""
    separator = text_format.separator
    if separator is None and lines and all("\t" in line for line in lines):
        separator = "\t"
    if separator is None or separator == " ":
        return BLANKS.split
    sign = separator
    return lambda line: [column.strip(" ") for column in line.split(sign)]


def _is_comment(line: str, fields: list[str], width: int, inside: bool) -> bool:
    """Return whether a line is a comment, and not a word that begins with ``#`` and its tag.

    A comment does not end in a tag, and has another number of columns, or begins with ``#`` and a blank before a
    sentence. Otherwise it is a word with a wrong tag.
    """
    if not line.startswith("#") or TAGGED.fullmatch(line):
        return False
    return len(fields) != width or bool(PART.match(line)) or (not inside and BLANKS.split(line)[0] == "#")


def _incomplete(fields: list[str], line: str) -> str:
    """Return what is wrong with a line that has a tag without a word, or a word without a tag."""
    if line.startswith("\t") or not fields[0]:
        return f"no word before the tag {fields[-1]!r}"
    return f"{fields[0]!r} has no tag; expected a word, white space and its tag"
