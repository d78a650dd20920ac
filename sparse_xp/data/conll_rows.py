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
#: the beginning of a comment of CoNLL-U, such as ``# text = ``
KEY = re.compile(r"#[ \t]*\w[\w.:-]*[ \t]+=[ \t]")
#: the number of a word in its sentence; CoNLL-U has ``2-3`` for two words in one, and ``2.1`` for one left out
INDEX_OF_WORD = re.compile(r"(\d+)([-.]\d+)?")
#: the lines around a document of CoNLL-2012
PART = re.compile(r"#(begin|end) document\b")


def read_conll(path: Path, text: str, text_format: TextFormat) -> list[NumberedRecord]:
    """Return the sentences of CoNLL text; a blank line ends one.

    Columns are cut at tabs if every line has one, else at blanks and tabs, and at nothing else: a word may hold a
    no-break space. Lines of ``-DOCSTART-`` and comments (``# id 5``) end a sentence or stand before it.
    Raises UserError for a line without a word and a tag, and if the first column has no words.
    """
    raw = text.split("\n")
    lines = [line.strip(" \t") for line in raw]
    data = [line for line in lines if line and not line.startswith(("#", "-DOCSTART-"))]
    data = data or [line for line in lines if TAGGED.fullmatch(line)]
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
                raise UserError(f"{path}, line {number}: {_incomplete(fields, raw[number - 1], path)}.")
            if len(fields) != width:
                raise UserError(
                    f"{path}, line {number}: {len(fields)} columns, and most lines have {width}. Write a word and its "
                    "tag in each line, with as many columns between them."
                )
            numbers.append(number)
            words.append(fields[0])
            tags.append(fields[-1])
    if width > 2:
        _check_words_are_words(path, records)
    return records


def _check_words_are_words(path: Path, records: list[NumberedRecord]) -> None:
    """Raise UserError if the first column numbers the words of each sentence, or names the document."""
    sentences = [record["tokens"] for _, record in records]
    if max(map(len, sentences), default=0) < 3:
        return
    if all(map(_counts, sentences)):
        what = "the numbers of the words"
    elif all(len(set(words)) == 1 for words in sentences):
        what = f"{sentences[0][0]!r} for all words of a sentence"
    else:
        return
    raise UserError(
        f"{path}, line {records[0][0][0]}: the first column has {what}, and should have the words. Remove the columns "
        "before them."
    )


def _counts(words: list[str]) -> bool:
    """Return whether the words of a sentence are the numbers from 0 or 1 on."""
    found = [INDEX_OF_WORD.fullmatch(word) for word in words]
    numbers = [int(number[1]) for number in found if number and not number[2]]
    return (
        all(found)
        and bool(numbers)
        and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        and numbers[0] < 2
    )


def _splitter(lines: list[str], text_format: TextFormat) -> Callable[[str], list[str]]:
    """Return the function that cuts a line into columns."""
    separator = text_format.separator
    with_tab = [line for line in lines if "\t" in line]
    if separator is None and with_tab:
        # One blank among tabs is a slip if blanks do not cut the lines into as many columns each.
        uneven = len({len(BLANKS.split(line)) for line in lines}) > 1
        alike = len({line.count("\t") for line in with_tab}) == 1
        if len(with_tab) == len(lines) or (uneven and alike and 2 * len(with_tab) > len(lines)):
            separator = "\t"
    if separator is None or separator == " ":
        return BLANKS.split
    sign = separator
    return lambda line: [column.strip(" ") for column in line.split(sign)]


def _is_comment(line: str, fields: list[str], width: int, inside: bool) -> bool:
    """Return whether a line is a comment, and not a word that begins with ``#`` and its tag.

    A comment has another number of columns, or begins with ``#`` and a blank before a sentence. If it ends in what
    could be a tag, both hold, or it is ``# key = value`` before a sentence. Otherwise it is a word, perhaps with a
    wrong tag.
    """
    if not line.startswith("#"):
        return False
    key = KEY.match(line)
    before_sentence = not inside and (BLANKS.split(line)[0] == "#" or bool(key))
    if TAGGED.fullmatch(line):  # such as ``# text = His blood type is O``
        return before_sentence and (len(fields) != width or bool(key))
    return len(fields) != width or bool(PART.match(line)) or before_sentence


def _incomplete(fields: list[str], line: str, path: Path) -> str:
    """Return what is wrong with a line that has a tag without a word, or a word without a tag."""
    if line.startswith("\t") or not fields[0]:
        return f"no word before the tag {fields[-1]!r}"
    if BLANKS.search(fields[0]):
        return f"{fields[0]!r} has no tab, which most lines have before the tag"
    other = ". A .txt file is read as CoNLL text; name it .csv or .tsv if it has columns" * (path.suffix == ".txt")
    return f"{fields[0]!r} has no tag; expected a word, white space and its tag{other}"
