"""Tags of the BIO scheme: ``O``, ``B-X`` for the first word of an entity of type X, ``I-X`` for its other words.

Pure functions. An ``I-X`` that does not continue an X begins an entity, as in the CoNLL-2000 script. Other schemes are
converted: IOB1, which has ``B-X`` only between two neighbours; BIOES and BILOU (``E`` or ``L``: the last word, ``S`` or
``U``: the only one), and BMEWO with ``M`` for ``I`` and ``W`` for the only word.
"""

from __future__ import annotations

import re
from typing import Any

from sparse_xp.errors import UserError

BIO = re.compile(r"O|[BI]-.+")
#: a tag of one of the schemes
TAG = re.compile(r"O|[BIMELSUW]-.+")


def to_bio(tags: list[str]) -> list[str]:
    """Return the tags of a row, of any of the schemes, in BIO: the same entities."""
    converted, unfinished = [], ""  # the type of the entity that the next word may continue
    for tag in tags:
        place, kind = tag[0], tag[2:]
        continues = bool(kind) and place in "IMEL" and kind == unfinished
        converted.append(f"{'I' if continues else 'B'}-{kind}" if kind else "O")
        unfinished = "" if place in "ELSUW" else kind
    return converted


def begins(tag: str, before: str) -> bool:
    """Whether an entity begins with ``tag``: a ``B-X``, or an ``I-X`` that does not continue an X."""
    return tag.startswith("B-") or (tag.startswith("I-") and before[2:] != tag[2:])


def check_classes(classes: list[str], where: str) -> None:
    """Raise ValueError unless ``classes`` are distinct tags of the BIO scheme, ``O`` among them, and at least two."""
    wrong = [name for name in classes if not BIO.fullmatch(name)]
    if wrong:
        raise ValueError(
            f"{where}: {wrong[0]!r} is no class of the BIO scheme: expected O, and B-TYPE and I-TYPE for each type."
        )
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise ValueError(f"{where}: the class {twice} is named twice.")
    if "O" not in classes or len(classes) < 2:
        raise ValueError(f"{where}: {', '.join(classes)}; expected O, for words outside of entities, and others.")


def classes_of(tags: set[Any], column: str, task: str) -> list[str]:
    """Return ``O``, then ``B-X`` and ``I-X`` for each type X among the tags of a column, in alphabetical order.

    Every type has both tags, since evaluation rows may have one that is absent from the training rows. Raises UserError
    for tags that are numbers or do not follow the BIO scheme.
    """
    if numbers := sorted(tag for tag in tags if not isinstance(tag, str)):
        raise UserError(
            f"task {task}: column {column} has numbers ({numbers[0]} to {numbers[-1]}) without names: name them with "
            "task.classes, in the order of the numbers."
        )
    if wrong := sorted(tag for tag in tags if not BIO.fullmatch(tag)):
        raise UserError(
            f"task {task}: column {column} has the tag {wrong[0]!r}, which is none of the BIO scheme: expected O, and "
            "B-TYPE and I-TYPE for each type."
        )
    types = sorted({tag[2:] for tag in tags} - {""})
    return ["O", *(f"{prefix}-{name}" for name in types for prefix in "BI")]


def entity_words(tags: list[str]) -> list[tuple[str, range]]:
    """Return the type and the words of each entity in the tags of a row."""
    entities: list[tuple[str, range]] = []
    for word, (tag, before) in enumerate(zip(tags, ["O", *tags], strict=False)):
        if begins(tag, before):
            entities.append((tag[2:], range(word, word + 1)))
        elif tag != "O":
            kind, words = entities[-1]
            entities[-1] = kind, range(words.start, word + 1)
    return entities
