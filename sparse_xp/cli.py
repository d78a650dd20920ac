"""The words ``KEY=VALUE`` of the small commands."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Collection
from typing import NoReturn

from sparse_xp.errors import UserError, did_you_mean, short_errors, shortened, wants_traceback


class Parser(argparse.ArgumentParser):
    """A parser of options whose errors are as short as all others, whatever was typed."""

    def error(self, message: str) -> NoReturn:
        super().error(shortened(message))


def split(words: list[str], known: Collection[str] = ()) -> dict[str, str]:
    """The values by key. Raises UserError for a word without ``=``, or one that is not ``known`` if these are given."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word}: want KEY=VALUE.{did_you_mean(word, known)}")
        if known:
            check_known(key, known)
        found[key] = value
    return found


def check_known(key: str, known: Collection[str]) -> None:
    """Raise UserError, with the nearest right one, for a key that there is not."""
    if key not in known:
        raise UserError(f"There is no '{key}='.{did_you_mean(key, known)} There are: {', '.join(known)}.")


def whole(key: str, value: str) -> int:
    """A whole number of at least 1. Raises UserError for another."""
    if not value.strip().isdecimal() or int(value) < 1:
        raise UserError(f"{key}={value}: want a whole number of at least 1.")
    return int(value)


def several(value: str) -> list[str]:
    """``[a,b]`` or ``a,b`` as its parts."""
    return [part.strip() for part in value.strip().removeprefix("[").removesuffix("]").split(",") if part.strip()]


def as_written(words: list[str]) -> list[str]:
    """``KEY=VALUE`` with the value quoted where it is a path that Hydra's grammar would take apart at ``,`` or ``=``.

    The directories of runs have such names, and are what ``teacher.path=`` and the like are given.
    """
    return [_quoted(word) for word in words]


def _quoted(word: str) -> str:
    key, equals, value = word.partition("=")
    plain = re.fullmatch(r"[\w./~+%:-]*", value)
    if not equals or plain or not (os.path.exists(value) or (key == "hydra.run.dir" and value[:1] not in "'\"")):
        return word
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def command(main: Callable[[list[str]], None], how: str | None, bare: bool = False) -> None:
    """Run ``main`` with the words of the command line; without any, say ``how``. Errors that the user can mend: a line.

    ``bare``: the command means something without words. ``HYDRA_FULL_ERROR=1`` shows errors with where they happened.
    """
    if (len(sys.argv) == 1 and not bare) or sys.argv[1:2] in (["-h"], ["--help"]):
        print(how)
        return
    with short_errors(wants_traceback()):
        main(sys.argv[1:])
