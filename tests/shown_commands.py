"""The commands that a text shows, and the runs that each of them makes."""

from __future__ import annotations

import re
import shlex

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

#: at the start of a line, or after what sets it off: a prompt, a comment sign, indentation, variables
COMMAND = re.compile(r"^[\s#$>]*(?:[A-Z_]+=\S+ )*(?:\S*/)?python -m sparse_xp (?P<words>.+)$")


def commands(text: str) -> list[str]:
    """The words after ``python -m sparse_xp``, line by line; a backslash at the end of a line continues it."""
    found = (COMMAND.match(line) for line in text.replace("\\\n", " ").splitlines())
    return [" ".join(match["words"].split()) for match in found if match]


def points(line: str) -> list[list[str]]:
    """The overrides of a shown command; for a sweep (``-m a=x,y``) those of each of its runs."""
    words = shlex.split(line, comments=True)
    overrides = [word for word in words if not word.startswith("-")]
    if not {"-m", "--multirun"} & set(words):
        return [overrides]
    [runs] = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)
    return runs
