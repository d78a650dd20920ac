"""Recipes of SparseML that were damaged: each must come to a plan or to a UserError."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sparse_xp.recipe.zoo import FILES

#: what is put into a line: signs of YAML, of eval(...), of tags; numbers that are none; what no terminal should get
PIECES = [
    *"-:?[]{}!&*#|>%@`,'\"\\ \t\n\r~<=.0123456789abz_\0\x07\x1b\x7f\u2028\ufeff\ud800é²",
    *("\n  ", "\n- ", "\n    ", ": ", "- !X ", "!X\n", "modifiers:\n", "a: ", "eval(", "a)", "&a ", "*a", "<<: *a"),
    *("---\n", "+++", "...\n", "!!int ", "!!bool ", "!!set ", "!!python/name:os.x ", "!!timestamp ", "%TAG ! x\n"),
    *("null", "5e-5", "-1", "1e400", ".nan", ".inf", "1:30", "2001-12-14", "0x", "0b", "[]", "{}", "''", "true"),
    *("1e308", "1.0e+308", "-.inf", "-1e300", "1000000", "1000001", "9" * 99, "1_0", "2:4", "124", "on", "no", "None"),
    *("__ALL__", "__ALL_PRUNABLE__", "re:.*", "re:(", "9" * 5000, "x" * 5000, "[" * 1000, "- " * 300, "eval(9**9**9)"),
]


@cache
def texts() -> tuple[str, ...]:
    """The recipes that come with the package, without the words around them."""
    found = []
    for path in sorted(Path(FILES).iterdir()):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            text = text.split("---", 2)[1]
        found.append(text)
    return tuple(found)


def recipes(seed: int, count: int) -> Iterator[str]:
    """``count`` damaged recipes, the same for the same seed. Each has a line break, and so is a text and no path."""
    dice = random.Random(seed)
    for _ in range(count):
        yield mutated(dice, dice.choice(texts())) + "\n"


def mutated(dice: random.Random, text: str) -> str:
    """``text`` with one to four lines or characters gone, doubled, exchanged, moved or replaced."""
    lines = text.splitlines(keepends=True)
    for _ in range(dice.randrange(1, 5)):
        lines = lines or ["\n"]
        i, j = dice.randrange(len(lines)), dice.randrange(len(lines))
        what = dice.randrange(8)
        line = lines[i]
        if what == 0:
            del lines[i]
        elif what == 1:
            lines.insert(i, lines[j])
        elif what == 2:
            lines[i], lines[j] = lines[j], line
        elif what == 3:
            at = dice.randrange(len(line) + 1)
            lines[i] = line[:at] + dice.choice(PIECES) + line[at + dice.randrange(2) :]
        elif what == 4:
            lines[i] = dice.choice(["", " ", "  ", "      "]) + line.lstrip()
        elif what == 5:
            key, colon, _ = line.partition(": ")
            lines[i] = f"{key}{colon}{dice.choice(PIECES)}\n" if colon else line
        elif what == 6:
            lines = lines[: i + 1]
            lines[i] = line[: dice.randrange(len(line) + 1)]
        else:
            lines[i] = line[: len(line) // 2] + chr(dice.randrange(0x110000)) + line[len(line) // 2 :]
    return "".join(lines)
