"""Labels of rows: a label is the text that the file has. A ClassLabel column has numbers, and the names of its classes.

The same class may be spelled in two ways: pandas makes ``1`` to ``1.0`` in a column with gaps, and JSON has ``true``
where Python prints ``True``. Where the classes are known, the other spelling is taken for the same class, and a remark
says so; where they come from the rows, two spellings of one class are an error.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from sparse_xp.data.printed_lists import parse_printed_list
from sparse_xp.data.table import Table, place_of, with_values
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.tasks.answers import brief
from sparse_xp.tasks.multi_hot import read_multi_hot

if TYPE_CHECKING:
    from datasets import Dataset

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
WHOLE = re.compile(r"([+-]?\d+)\.0*")
FRACTION = re.compile(r"[+-]?\d*\.\d*[1-9]\d*([eE][+-]?\d+)?")
#: invisible characters that Unicode counts among the accents: a joiner, and those that choose the shape of a sign
VARIANTS = {"\u034f", *map(chr, range(0xFE00, 0xFE10))}
#: so many classes draw a remark if there are hardly more rows
MANY_CLASSES = 50
#: a number of a class
INDEX = re.compile(r"0|[1-9]\d{0,8}")


def class_names(rows: Table | Dataset, column: str) -> list[str] | None:
    """Return the names of a ClassLabel column, or of one of lists of ClassLabel; None for another column."""
    if isinstance(rows, Table):
        return rows.class_names(column)
    from datasets import ClassLabel

    feature = rows.features[column]
    inner = getattr(feature, "feature", feature)
    return list(inner.names) if isinstance(inner, ClassLabel) else None


def check_class_names(task: str, classes: list[str], rows: Table | Dataset, column: str) -> None:
    """Raise UserError if the column names other classes than ``classes`` of the task, or in another order."""
    names = class_names(rows, column)
    if names and names != classes:
        raise UserError(
            f"task {task}: task.classes is {classes}, but column {column} of the data has {names}. Write them as the "
            "data have them, in their order, or leave task.classes out."
        )


def spelled(label: object) -> str | None:
    """Return a label as JSON writes it, without quotes; None for a missing one."""
    if label is None or label != label:
        return None
    return str(label).lower() if isinstance(label, bool) else str(label)


def sort_classes(classes: set[str]) -> list[str]:
    """Return the classes by their value if all are numbers, else in alphabetical order."""
    if all(map(NUMBER.fullmatch, classes)):
        return sorted(classes, key=lambda name: (float(name), name))
    return sorted(classes)


def common_spelling(label: str) -> str:
    """Return what the spellings of a class have in common: ``1`` of ``1.0``, ``true`` of ``True``, no outer blanks."""
    text = label.strip()
    if whole := WHOLE.fullmatch(text):
        return whole[1]
    return text.lower() if text.lower() in ("true", "false") else text


def find_class(label: str, classes: list[str], numbered: bool) -> int | None:
    """Return the index of the class that a label names, or is the number of (``numbered``); None if there is none.

    A number that is itself a name (stars from 1 to 5) is the name.
    """
    if label in classes:
        return classes.index(label)
    common = common_spelling(label)
    alike = [number for number, name in enumerate(classes) if common_spelling(name) == common]
    if len(alike) == 1:
        return alike[0]
    by_number = numbered and INDEX.fullmatch(common) and not all(map(str.isdecimal, classes))
    return int(common) if by_number and int(common) < len(classes) else None


def normalize_labels(
    rows: Table | Dataset, column: str, source: str, classes: list[str], numbered: bool, several: bool
) -> tuple[Table | Dataset, list[str]]:
    """Return the rows with each label as the name of its class, and remarks on other spellings.

    ``classes``: those of the task; if it has none yet, each spelling is a class. ``numbered``: a label may be the
    number of a class. ``several``: each row has a list of labels, which CSV has in print. A ClassLabel column stays as
    it is. Raises UserError, with the place, for a missing label, ``-1`` (the mark of rows without one on the hub), one
    that is no class, and two spellings of one class.
    """
    if names := class_names(rows, column):
        _check_numbers(rows, column, source, names)
        if several:
            numbers = [[str(label) for label in labels] for labels in rows[column]]
            read_multi_hot(numbers, [], column, lambda row: place_of(rows, source, row))
        return rows, []
    labels = _spelled_rows(rows, column, source, several)
    if several:
        labels = read_multi_hot(labels, classes, column, lambda row: place_of(rows, source, row))
    first: dict[str, int] = {}  # the row in which each spelling is met
    for row, texts in enumerate(labels):
        for text in texts:
            first.setdefault(text, row)
    places = {text: place_of(rows, source, row) for text, row in first.items()}
    looks: list[str] = []
    if not classes:
        _check_spellings(places, column, len(labels))
        looks = [*alike_remarks(places, column), *_many_classes(rows, column, source, len(places))]
    known = set(classes)
    names_of = {
        text: text if text in known else _name(text, classes, numbered, column, place) for text, place in places.items()
    }
    remarks = [
        f"{places[text]}: the label {text!r} in column {column} is taken for the class {name!r}, here and below"
        for text, name in names_of.items()
        if text != name and common_spelling(text) == common_spelling(name)
    ]
    named = [[names_of[text] for text in texts] for texts in labels]
    return with_values(rows, column, named if several else [name for [name] in named]), looks + remarks


def alike_remarks(places: dict[str, str], column: str) -> list[str]:
    """Return a remark if names differ only in case, Unicode's normal form or invisible characters.

    ``places``: where each name is met first.
    """
    seen: dict[str, str] = {}
    pairs = [(name, other) for name in places if (other := seen.setdefault(_visible(name), name)) != name]
    return [
        f"{places[name]}: column {column} has {_exact(name, other)}, and {_exact(other, name)} in {places[other]}: "
        "they are two classes, and differ only in case, in Unicode's normal form or in invisible characters "
        f"(such pairs in all: {len(pairs):,})"
        for name, other in pairs[:1]
    ]


def _visible(name: str) -> str:
    """Return what a reader sees of a name, in lower case: without invisible characters, with single blanks."""
    text = unicodedata.normalize("NFKC", name).casefold()
    shown = "".join(sign for sign in text if unicodedata.category(sign) != "Cf" and sign not in VARIANTS)
    return " ".join(unicodedata.normalize("NFKC", shown).split())


def _exact(name: str, other: str) -> str:
    """Return a name in quotes, with escapes if it cannot be told from the other one by its letters."""
    return repr(name) if name.isascii() and other.isascii() else ascii(name)


def _many_classes(rows: Table | Dataset, column: str, source: str, count: int) -> list[str]:
    """Return a remark if the rows have hardly more rows than classes: such a column may be one of ids or texts."""
    if count < MANY_CLASSES or 2 * count < len(rows):
        return []
    return [
        f"{place_of(rows, source, 0)}: column {column} has {count:,} classes in {len(rows):,} rows. If it is not the "
        "column of labels, name another with task.label="
    ]


def _check_numbers(rows: Table | Dataset, column: str, source: str, names: list[str]) -> None:
    """Raise UserError for a number in a ClassLabel column that is none of a class."""
    for row, value in enumerate(rows[column]):
        for label in value if isinstance(value, list) else [value]:
            if label is None or not 0 <= label < len(names):
                raise UserError(f"{place_of(rows, source, row)}: {_no_class(spelled(label), names, column)}")


def _spelled_rows(rows: Table | Dataset, column: str, source: str, several: bool) -> list[list[str]]:
    """Return the labels of each row as texts. Raises UserError for a missing one."""
    spelled_rows = []
    for row, value in enumerate(rows[column]):
        try:
            value = parse_printed_list(value) if several and isinstance(value, str) else value
        except ValueError as error:
            raise UserError(f"{place_of(rows, source, row)}: column {column} {error}.") from error
        if several and not isinstance(value, list):
            raise UserError(f"{place_of(rows, source, row)}: {column}={value!r}, expected a list of labels.")
        given = value if several else [value]
        if odd := [label for label in given if isinstance(label, bytes | list | dict)]:
            raise UserError(
                f"{place_of(rows, source, row)}: {column} has {brief(odd[0])}, expected a text or a number."
            )
        texts = [spelled(label) for label in given]
        if any(text is None or not text.strip() for text in texts):
            raise UserError(f"{place_of(rows, source, row)}: {_no_class(None, [], column)}")
        spelled_rows.append([text for text in texts if text is not None])
    return spelled_rows


def _check_spellings(places: dict[str, str], column: str, rows: int) -> None:
    """Raise UserError for two spellings of one class, ``-1``, and numbers that are no classes.

    ``places``: where each spelling is met first.
    """
    seen: dict[str, str] = {}
    for text, place in places.items():
        common = common_spelling(text)
        if common == "-1":
            raise UserError(f"{place}: {_no_class(text, [], column)}")
        if common in seen:
            raise UserError(
                f"{place}: column {column} has the label {text!r}, and {seen[common]!r} in {places[seen[common]]}. "
                "Write a class in one way, or name both with task.classes."
            )
        seen[common] = text
    if any(map(FRACTION.fullmatch, seen)) and 2 * len(seen) > rows:
        text, place = next(item for item in places.items() if FRACTION.fullmatch(item[0]))
        raise UserError(
            f"{place}: column {column} has {text}, and {len(seen)} different labels in {rows} rows: these are numbers, "
            "and no classes. Write task.problem=regression, or name the classes with task.classes."
        )


def _name(text: str, classes: list[str], numbered: bool, column: str, place: str) -> str:
    """Return the class that a label stands for. Raises UserError for one that is no class."""
    if not classes:
        return text
    number = find_class(text, classes, numbered)
    if number is None:
        raise UserError(f"{place}: {_no_class(text, classes, column)}")
    return classes[number]


def _no_class(text: str | None, classes: list[str], column: str) -> str:
    """Return the end of a message about a label that is no class, or a missing one (None)."""
    if text is None:
        return f"no label in column {column}. Write one, or leave the row out."
    if common_spelling(text) == "-1":
        return (
            f"the label {text} in column {column} marks a row without one in data sets of the hub. Leave such rows "
            "out, or name it in task.classes if it is a class."
        )
    quoting = " YAML reads yes and no as true and false: quote them." if _are_booleans(classes) else ""
    return (
        f"the label {text!r} in column {column} is none of the {len(classes)} classes: {', '.join(classes)}."
        f"{_nearest(text, classes)}{quoting} The classes are those of the training rows, or task.classes."
    )


def _nearest(text: str, classes: list[str]) -> str:
    """Return the question whether a similar class is meant, or in what a class that looks the same differs."""
    same = next((name for name in classes if _visible(name) == _visible(text)), None)
    if same is None or same.casefold() == text.casefold():
        return did_you_mean(text, classes)
    return f" {text!a} looks like the class {same!a}, and has other characters."


def _are_booleans(classes: list[str]) -> bool:
    return {name.lower() for name in classes} == {"true", "false"}
