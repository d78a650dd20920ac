"""The fields of one modifier of a SparseML recipe, taken one after another and checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sparse_xp.errors import did_you_mean
from sparse_xp.recipe.expressions import as_number
from sparse_xp.recipe.loader import RecipeError, Tagged

T = TypeVar("T")
REQUIRED: Any = object()


class Fields:
    """The fields of one modifier, each taken once and checked. ``times``: the epochs among them."""

    def __init__(self, recipe: str, tagged: Tagged):
        self.recipe, self.tagged = recipe, tagged
        self.rest, self.known = dict(tagged.fields), set[str]()
        self.times: list[float] = []
        self.remarks: list[str] = []

    def wrong(self, name: str, message: str) -> RecipeError:
        places = self.tagged.places
        return RecipeError(self.recipe, places.get(name, places[""]), message)

    def take(self, name: str, convert: Callable[[Any], T], default: Any = REQUIRED) -> T:
        """The value of a field. Raises RecipeError if it is required and not there, or cannot be converted."""
        self.known.add(name)
        if name not in self.rest:
            if default is REQUIRED:
                raise self.wrong("", f"!{self.tagged.name} needs {name}")
            return default
        value = self.rest.pop(name)
        if value is None and default is not REQUIRED:
            return default
        try:
            return convert(value)
        except ValueError as error:
            raise self.wrong(name, f"{name}: {error}") from error

    def start(self, default: Any = -1) -> float:
        """``start_epoch`` as a time; -1 is before the first step."""
        value = self.take("start_epoch", epoch, default)
        self.times.append(value)
        return max(value, 0.0)

    def end(self, default: Any = -1) -> float | str:
        """``end_epoch`` as a time; -1 is never."""
        value = self.take("end_epoch", epoch, default)
        self.times.append(value)
        return "100%" if value == -1 else value

    def every(self, name: str = "update_frequency", default: Any = REQUIRED) -> float | str:
        """A period as a time; -1 is every step."""
        value = self.take(name, epoch, default)
        return value if value > 0 else "1 steps"

    def unused(self, *names: str) -> None:
        """Fields that SparseML accepts and ignores."""
        for name in names:
            self.known.add(name)
            self.rest.pop(name, None)

    def all_groups(self) -> None:
        """``param_groups``: there are two, with and without weight decay, and they are always driven together."""
        if self.take("param_groups", lambda value: value, None):
            raise self.wrong("param_groups", "param_groups: only all of them (leave it out)")

    def remark(self, text: str) -> None:
        self.remarks.append(f"{Path(self.recipe).name}: {self.tagged.name}: {text}")

    def done(self) -> None:
        """Raise RecipeError for a field that no one has taken."""
        self.unused("log_types")
        for name in self.rest:
            hint = did_you_mean(name, self.known)
            raise self.wrong(name, f"!{self.tagged.name} has no {name}.{hint} It has {', '.join(sorted(self.known))}")


def number(value: Any) -> float:
    """A finite number, or text that is one. Raises ValueError for anything else."""
    found = as_number(value)
    if found is None or not math.isfinite(found):
        raise ValueError(f"want a number, not {value!r}")
    return float(found)


def epoch(value: Any) -> float:
    """An epoch from 0, or -1. Raises ValueError for anything else."""
    found = number(value)
    if found < 0 and found != -1:
        raise ValueError(f"want an epoch from 0, or -1, not {value!r}")
    return found


def whole(value: Any) -> int:
    """A whole number. Raises ValueError for anything else."""
    found = number(value)
    if found != int(found):
        raise ValueError(f"want a whole number, not {value!r}")
    return int(found)


def flag(value: Any) -> bool:
    """True or false: as YAML has them, as 0 and 1, or as text. Raises ValueError for anything else."""
    found = {"true": 1, "false": 0}.get(value.lower()) if isinstance(value, str) else value
    if found not in (0, 1):
        raise ValueError(f"want true or false, not {value!r}")
    return bool(found)


def text(value: Any) -> str:
    """A name. Raises ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"want a name, not {value!r}")
    return value


def texts(value: Any) -> list[str]:
    """A list of names. Raises ValueError for anything else."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"want a list of names, not {value!r}")
    return list(value)


def selection(value: Any) -> list[str]:
    """A list of names and ``re:`` patterns, or one of the tokens."""
    if isinstance(value, str):
        if value.upper() not in ("__ALL__", "__ALL_PRUNABLE__"):
            raise ValueError(f"want a list, __ALL__ or __ALL_PRUNABLE__, not {value!r}")
        return [value.upper()]
    return texts(value)


def mapping(value: Any) -> dict[str, Any]:
    """``name: value`` lines. Raises ValueError for anything else."""
    if not isinstance(value, dict):
        raise ValueError(f"want 'name: value' lines, not {value!r}")
    return {str(key): each for key, each in value.items()}
