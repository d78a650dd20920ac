"""The words ``KEY=VALUE`` of the small commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection

from hydra.errors import CompactHydraException
from omegaconf.errors import OmegaConfBaseException

from sparse_xp.errors import UserError, did_you_mean, explain


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


def command(main: Callable[[list[str]], None], how: str | None) -> None:
    """Run ``main`` with the words of the command line; without any, say ``how``. Errors that the user can mend: a line.

    ``HYDRA_FULL_ERROR=1`` shows them with where they happened.
    """
    if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help"):
        print(how)
        return
    try:
        main(sys.argv[1:])
    except (CompactHydraException, OmegaConfBaseException) as error:
        if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
            raise
        sys.exit(explain(error))
