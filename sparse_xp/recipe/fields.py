"""The fields of one tag of a SparseML recipe: taken one after another, each converted and checked."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Final, TypeVar

from sparse_xp.errors import did_you_mean
from sparse_xp.recipe.expressions import MAX_VALUE, as_number
from sparse_xp.recipe.loader import RecipeError, TaggedMapping

#: the last epoch that a recipe may name: no run is longer, and what goes through its epochs must end
MAX_EPOCH = 10_000

#: what a field is converted to, and the type of its default
T = TypeVar("T")
D = TypeVar("D")


class Required(Enum):
    """The type of ``REQUIRED``: an enum of one member, so that type checkers tell it from every default."""

    REQUIRED = "required"


#: the default of a field that must be given
REQUIRED: Final = Required.REQUIRED


class Fields:
    """The fields of one tag. ``tag_row`` and the functions of the tags take them; every field must be taken.

    ``untaken``: the fields that were not taken yet. ``known``: the names that the tag has, for messages.
    ``times``: the epochs among the values, from which ``parsed`` finds the length of the run. ``remarks``: warnings
    about this tag.
    """

    def __init__(self, recipe: str, tagged: TaggedMapping):
        self.recipe, self.tagged = recipe, tagged
        self.untaken, self.known = dict(tagged.fields), set[str]()
        self.times: list[float] = []
        self.remarks: list[str] = []

    def error(self, name: str, message: str) -> RecipeError:
        """Return an error in field ``name``, at its position; in the tag itself if ``name`` is ``""``.

        An error in a field begins with the tag: a recipe may have many of one kind.
        """
        positions = self.tagged.positions
        text = f"!{self.tagged.name}: {message}" if name else message
        return RecipeError(self.recipe, positions.get(name, positions[""]), text)

    def take(self, name: str, convert: Callable[[object], T], default: D | Required = REQUIRED) -> T | D:
        """Return the value of a field. ``convert`` raises ValueError for a value that it does not accept.

        Raises RecipeError if the field is required and not given, and if it cannot be converted.
        """
        self.known.add(name)
        if name not in self.untaken:
            if default is REQUIRED:
                raise self.error("", f"!{self.tagged.name} needs {name}")
            return default
        value = self.untaken.pop(name)
        if value is None and default is not REQUIRED:
            return default
        try:
            return convert(value)
        except ValueError as error:
            raise self.error(name, f"{name}: {error}") from error

    def start(self, default: float | Required = -1) -> float:
        """Return ``start_epoch`` in epochs. SparseML's -1 is before the first step: 0."""
        value = self.take("start_epoch", to_epoch, default)
        self.times.append(value)
        return max(value, 0.0)

    def end(self, default: float | Required = -1) -> float | str:
        """Return ``end_epoch`` in epochs. SparseML's -1 is never: ``100%``."""
        value = self.take("end_epoch", to_epoch, default)
        self.times.append(value)
        return "100%" if value == -1 else value

    def period(self, name: str = "update_frequency", default: float | Required = REQUIRED) -> float | str:
        """Return a period in epochs. SparseML's -1 is every step: ``1 steps``."""
        value = self.take(name, to_epoch, default)
        return value if value > 0 else "1 steps"

    def ignore(self, *names: str) -> None:
        """Drop fields that SparseML accepts and does not use."""
        for name in names:
            self.known.add(name)
            self.untaken.pop(name, None)

    def reject_param_groups(self) -> None:
        """Raise RecipeError for ``param_groups``: here all groups of the optimizer share a rate and a decay."""
        if self.take("param_groups", lambda value: value, None):
            raise self.error("param_groups", "param_groups: all groups are driven together here; leave it out")

    def remark(self, text: str) -> None:
        """Tell the user something about this tag."""
        self.remarks.append(f"{Path(self.recipe).name}: {self.tagged.name}: {text}")

    def check_all_taken(self) -> None:
        """Raise RecipeError for a field that was not taken: the tag does not have it."""
        self.ignore("log_types")
        for name in self.untaken:
            hint, position = did_you_mean(name, self.known), self.tagged.positions.get(name, self.tagged.positions[""])
            known = ", ".join(sorted(self.known))
            raise RecipeError(self.recipe, position, f"!{self.tagged.name} has no {name}.{hint} It has {known}")


# Each of the following checks one value of a recipe and raises ValueError with what was expected.


def quoted(value: object) -> str:
    """Return a value for a message, shortened."""
    return reprlib.repr(value)


def to_number(value: object) -> float:
    """Return a number within the bounds that expressions have too, from a number or from text."""
    number = as_number(value)
    if number is None or not abs(number) <= MAX_VALUE:  # nan is not; an integer may be too large for a float
        bound = f" up to {MAX_VALUE:g}" if number is not None else ""
        raise ValueError(f"expected a number{bound}, not {quoted(value)}")
    return float(number)


def to_epoch(value: object) -> float:
    """Return an epoch from 0 to ``MAX_EPOCH``, or -1."""
    epoch = to_number(value)
    if epoch < 0 and epoch != -1:
        raise ValueError(f"expected an epoch from 0, or -1, not {quoted(value)}")
    if epoch > MAX_EPOCH:
        raise ValueError(f"expected an epoch up to {MAX_EPOCH:,}, not {quoted(value)}")
    return epoch


def to_integer(value: object) -> int:
    """Return a whole number."""
    number = to_number(value)
    if number != int(number):
        raise ValueError(f"expected a whole number, not {quoted(value)}")
    return int(number)


def to_boolean(value: object) -> bool:
    """Return True or False: from YAML's, from 0 and 1, or from text."""
    boolean = {"true": 1, "false": 0}.get(value.lower()) if isinstance(value, str) else value
    if boolean not in (0, 1):
        raise ValueError(f"expected true or false, not {quoted(value)}")
    return bool(boolean)


def to_name(value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise ValueError(f"expected a name, not {quoted(value)}")
    return value


def to_names(value: object) -> list[str]:
    """Return a list of names and ``re:`` patterns.

    SparseML doubled each backslash when it saved a pattern. No name has a backslash, so a doubled one is a single one.
    """
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"expected a list of names, not {quoted(value)}")
    return [re.sub(r"\\{2,}", r"\\", name) if name.startswith("re:") else name for name in value]


def to_selection(value: object) -> list[str]:
    """Return a list of names and ``re:`` patterns, or of one token."""
    if isinstance(value, str):
        if value.upper() not in ("__ALL__", "__ALL_PRUNABLE__"):
            raise ValueError(f"expected a list, __ALL__ or __ALL_PRUNABLE__, not {quoted(value)}")
        return [value.upper()]
    return to_names(value)


def to_mapping(value: object) -> dict[str, object]:
    """Return a mapping, its keys as text."""
    if not isinstance(value, dict):
        raise ValueError(f"expected 'name: value' lines, not {quoted(value)}")
    return {str(key): child for key, child in value.items()}
