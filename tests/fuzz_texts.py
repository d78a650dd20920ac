"""Rows that a user's file might have, and some that it should not: for tests, and for longer runs by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

#: from and to of ranges of characters: signs, letters of several scripts, joiners, private ones, pictures, half pairs
RANGES = [(0, 32), (32, 127), (160, 0x250), (0x300, 0x370), (0x400, 0x590), (0x600, 0x700), (0x900, 0xA00)]
RANGES += [(0x2000, 0x2070), (0x4E00, 0x5000), (0xAC00, 0xAD00), (0xE000, 0xE010), (0xFDF0, 0x10000)]
RANGES += [(0x1F300, 0x1F6FF), (0x10FFF0, 0x110000)]
SURROGATES = (0xD800, 0xE000)
#: no texts, all of them possible in JSON, CSV or parquet
OTHER = [None, True, 0, -7, 1.5, float("nan"), 10**30, [], {}, [["a"]], [None], {"text": "a"}, b"bytes", [1, "a"]]
#: texts on which something may turn
ODD = ["", " ", "\n\t ", "\0", "\ufeff", "[CLS] [SEP] [MASK] [PAD] [UNK]", "word " * 300, "x" * 3000, "\u0301" * 50]


def rows(seed: int, count: int, names: list[str]) -> Iterator[dict[str, Any]]:
    """``count`` rows with texts of ``names``. One in five lacks a name, has another value or a lone surrogate."""
    chance = random.Random(seed)
    for _ in range(count):
        row: dict[str, Any] = {name: text(chance) for name in names}
        name = chance.choice(names)
        wrong = chance.random()
        if wrong < 0.05:
            del row[name]
        elif wrong < 0.12:
            row[name] = chance.choice(OTHER)
        elif wrong < 0.17:
            row[name] = with_surrogate(chance, str(row[name]))
        elif wrong < 0.2:
            row[with_surrogate(chance, "key")] = "a"
        elif wrong < 0.4:
            row[name] = chance.choice(ODD)
        elif wrong < 0.5:
            row[name] = text(chance).split()
        yield row


def text(chance: random.Random) -> str:
    """Up to forty words of up to ten characters."""
    words = []
    for _ in range(chance.randrange(40)):
        first, last = chance.choice(RANGES)
        words.append("".join(chr(chance.randrange(first, last)) for _ in range(chance.randrange(1, 10))))
    return " ".join(words)


def with_surrogate(chance: random.Random, whole: str) -> str:
    """The text with half of a UTF-16 pair put into it."""
    place = chance.randint(0, len(whole))
    return whole[:place] + chr(chance.randrange(*SURROGATES)) + whole[place:]
