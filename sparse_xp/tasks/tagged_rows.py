"""Sentences as lists of words and tags: lists printed into CSV are read, tags of any scheme become those of BIO."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sparse_xp.data.printed_lists import parse_printed_list
from sparse_xp.data.table import Table, place_of, with_values
from sparse_xp.errors import UserError, did_you_mean, shortened
from sparse_xp.tasks.bio import BIO, TAG, to_bio
from sparse_xp.tasks.labels import INDEX, alike_remarks, class_names, common_spelling

if TYPE_CHECKING:
    from datasets import Dataset

#: a line of CoNLL text: a word, perhaps further columns, and a tag
WORD_AND_TAG = re.compile(r"\S+([ \t]\S+)*[ \t](O|[BIOLUESMW]-\S+)")


def normalize_tags(
    rows: Table | Dataset, tokens: str, tags: str, source: str, strict: bool, classes: list[str], numbered: bool
) -> tuple[Table | Dataset, list[str]]:
    """Return the rows with tags of BIO by name, and remarks on what was converted.

    Rows that need no conversion stay as they are. Numbers without names are left for the task to name.

    Args:
        rows: sentences; ``tokens``, ``tags``: their columns of words and tags, lists or printed lists.
        source: what messages call rows that are of no file.
        strict: whether an empty word is an error.
        classes: the tags of the task, if they are known; ``numbered``: whether a tag may be the number of one.

    Raises UserError, with the place, for lists of different lengths and a tag that is none.
    """
    names = class_names(rows, tags) or (classes if numbered else [])
    words, read = _lists(rows, tokens, source), _lists(rows, tags, source)
    _check_words(rows, words, read, tokens, tags, source, strict)
    if not names and not classes and {type(tag) for row in read for tag in row} == {int}:
        return with_values(rows, tags, read) if read != rows[tags] else rows, []
    named = [
        [_named(tag, names, classes, place_of(rows, source, i, part), tags) for part, tag in enumerate(row)]
        for i, row in enumerate(read)
    ]
    converted = [_in_classes(to_bio(row), classes) for row in named]
    _check_classes(rows, tags, source, converted, classes)
    remarks = _remarks(rows, source, named, converted)
    if not classes:
        remarks += alike_remarks(_first_places(rows, source, converted), tags)
    if words != rows[tokens]:
        rows = with_values(rows, tokens, words)
    in_print = any(  # numbers as texts
        isinstance(tag, str) and tag != name
        for row, here in zip(read, named, strict=True)
        for tag, name in zip(row, here, strict=True)
    )
    if converted != named or read != rows[tags] or in_print or not all(map(BIO.fullmatch, names)):
        rows = with_values(rows, tags, converted)
    return rows, remarks


def words_only(rows: Table, tokens: str, column: str, words: list[list[str]] | None = None) -> Table:
    """Return the words of rows without tags as the column ``tokens``, and no other column.

    ``column``: of the file. ``words``: those of its running text; None for a column of lists, or printed lists.
    Raises UserError, with the place, for a word that is none, and for a row without a word.
    """
    import pyarrow

    source = str(rows.path)
    lists = _lists(rows, column, source) if words is None else words
    _check_words(rows, lists, lists, column, column, source, strict=True)
    if empty := [row for row, here in enumerate(lists) if not here]:
        raise UserError(
            f"{place_of(rows, source, empty[0])}: no word in column {column}. Write one, or leave the row out."
        )
    return rows.with_data(pyarrow.table({tokens: pyarrow.array(lists, pyarrow.list_(pyarrow.string()))}))


def check_untagged(rows: Table, column: str) -> None:
    """Raise UserError if running text looks like CoNLL text: a word and its tag in most lines."""
    tagged = [row for row, text in enumerate(rows[column]) if isinstance(text, str) and WORD_AND_TAG.fullmatch(text)]
    if 2 * len(tagged) > len(rows):
        raise UserError(
            f"{rows.place(tagged[0])}: this looks like CoNLL text, a word and its tag in a line. Name the file .conll."
        )


def _lists(rows: Table | Dataset, column: str, source: str) -> list[list[Any]]:
    """Return a column of lists, printed ones among them. Whole numbers as floats, as pandas has them, become ints."""
    lists = []
    for row, value in enumerate(rows[column]):
        try:
            value = parse_printed_list(value) if isinstance(value, str) else value
        except ValueError as error:
            raise UserError(f"{place_of(rows, source, row)}: column {column} {error}.") from error
        if not isinstance(value, list):
            raise UserError(
                f"{place_of(rows, source, row)}: no list in column {column}. Write one, or leave the row out."
            )
        lists.append([int(item) if isinstance(item, float) and item.is_integer() else item for item in value])
    return lists


def _check_words(
    rows: Table | Dataset,
    words: list[list[Any]],
    read: list[list[Any]],
    tokens: str,
    tags: str,
    source: str,
    strict: bool,
) -> None:
    """Raise UserError for a word that is none, and for a row with more words than tags, or fewer."""
    for row, (here, tagged) in enumerate(zip(words, read, strict=True)):
        for part, word in enumerate(here):
            if not isinstance(word, str) or (strict and not word):
                raise UserError(f"{place_of(rows, source, row, part)}: word {part} in column {tokens} is {word!r}.")
        if len(here) != len(tagged):
            raise UserError(
                f"{place_of(rows, source, row)} has {len(here)} {tokens} and {len(tagged)} {tags}; expected one tag "
                "for each."
            )


def _named(tag: object, names: list[str], classes: list[str], place: str, column: str) -> str:
    """Return the name of a tag. Raises UserError for one that is none, or none of the classes.

    ``names``: what numbers stand for. ``classes``: those of the task, if they are known.
    """
    if isinstance(tag, str) and names and tag not in names and INDEX.fullmatch(common_spelling(tag)):
        tag = int(common_spelling(tag))
    if isinstance(tag, int) and not isinstance(tag, bool):
        if 0 <= tag < len(names):
            return _of_a_scheme(names[tag], place, column)
        known = f"but there are {len(names)} names: {', '.join(names)}" if names else "but other tags have names"
        raise UserError(f"{place}: the tag {tag} in column {column} is a number, {known}.")
    return _of_a_scheme(tag, place, column)


def _of_a_scheme(tag: object, place: str, column: str) -> str:
    """Return a tag. Raises UserError if it is none of BIO or a scheme that is converted."""
    if not isinstance(tag, str) or not TAG.fullmatch(tag):
        raise UserError(
            f"{place}: the tag {shortened(repr(tag), 50)} in column {column} is none of a scheme: expected O, and "
            "B-TYPE and I-TYPE for each type (or those of BIOES, BILOU)."
        )
    return tag


def _in_classes(tags: list[str], classes: list[str]) -> list[str]:
    """Return the tags of a row, with ``I-X`` for ``B-X`` where the classes have only that, as in the scheme IO."""
    return [f"I{tag[1:]}" if tag not in classes and f"I{tag[1:]}" in classes else tag for tag in tags]


def _check_classes(rows: Table | Dataset, column: str, source: str, tags: list[list[str]], classes: list[str]) -> None:
    """Raise UserError for a tag that is none of the classes, if these are known."""
    if classes and (unknown := {tag for row in tags for tag in row} - set(classes)):
        row, part, tag = next((i, k, tag) for i, row in enumerate(tags) for k, tag in enumerate(row) if tag in unknown)
        raise UserError(
            f"{place_of(rows, source, row, part)}: the tag {tag!r} in column {column} is none of the {len(classes)} "
            f"classes: {', '.join(classes)}.{did_you_mean(tag, classes)} The classes are those of the training rows, "
            "or task.classes."
        )


def _first_places(rows: Table | Dataset, source: str, tags: list[list[str]]) -> dict[str, str]:
    """Return the types of entities, each with the place where it is met first."""
    first: dict[str, tuple[int, int]] = {}
    for row, here in enumerate(tags):
        for part, tag in enumerate(here):
            first.setdefault(tag[2:], (row, part))
    return {kind: place_of(rows, source, *found) for kind, found in first.items()}


def _remarks(rows: Table | Dataset, source: str, named: list[list[str]], converted: list[list[str]]) -> list[str]:
    """Say what was converted, and where it is met first."""
    changed = [
        (row, part, before, after)
        for row, (old, new) in enumerate(zip(named, converted, strict=True))
        for part, (before, after) in enumerate(zip(old, new, strict=True))
        if before != after
    ]
    kinds: dict[str, list[tuple[int, int, str, str]]] = {}
    for change in changed:
        kinds.setdefault(_scheme(change[2], change[3]), []).append(change)
    return [
        f"{place_of(rows, source, *found[0][:2])}: {found[0][2]} is read as {found[0][3]} ({scheme}; so are "
        f"{len(found):,} in all)"
        for scheme, found in kinds.items()
    ]


def _scheme(before: str, after: str) -> str:
    """Return why a tag is converted."""
    if not BIO.fullmatch(before):
        return "tags of BIOES or BILOU"
    return "tags of IOB1, with I- at the beginning of an entity" if before.startswith("I") else "the classes have no B-"
