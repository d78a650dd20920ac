"""The variables of a recipe and of its stages, and the ``eval(...)`` that says one by others."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from sparse_xp.errors import did_you_mean
from sparse_xp.recipe.expressions import ExpressionError, as_number, evaluate, names_in
from sparse_xp.recipe.loader import MAX_DEPTH, MAX_VALUES, Place, RecipeError, Tagged

EVAL = re.compile(r"eval\((.*)\)", re.DOTALL)


@dataclass
class Section:
    """The recipe outside of stages, or one stage (``name``): modifiers, variables as they are written, and where."""

    modifiers: list[Tagged] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    name: str = ""


class Scope:
    """Variables of the recipe, or of a stage inside of it, resolved when they are asked for."""

    def __init__(self, name: str, section: Section, outer: Scope | None = None):
        self.name, self.section, self.outer = name, section, outer
        self.top: Scope = outer.top if outer else self
        self.spent = 0  # by the whole recipe, if this is the top
        self.known: dict[str, tuple[Any, int]] = {}  # each with what it costs to say it once more
        self.path: list[str] = []  # the variables that are being resolved: a cycle is in it

    def variables(self) -> dict[str, Any]:
        """Every variable of the section."""
        return {key: self.variable(key) for key in self.section.variables}

    def modifiers(self) -> list[Tagged]:
        """The modifiers of the section, with every expression in them resolved."""
        return [
            replace(
                each,
                fields={key: self.value(value, each.places[key]) for key, value in each.fields.items()},
                variables={key: self.said(value, each.variables.get(key, [])) for key, value in each.fields.items()},
                stage=self.section.name,
            )
            for each in self.section.modifiers
        ]

    def said(self, value: Any, homes: list[str]) -> list[str]:
        """The variables that a field is said by: those of its eval(...), or the one whose anchor it repeats."""
        match = EVAL.fullmatch(value) if isinstance(value, str) else None
        known = {*self.section.variables, *(self.outer.section.variables if self.outer else ())}
        return sorted(known & {*homes, *(names_in(match[1]) if match else ())})

    def variable(self, key: str, place: Place | None = None) -> Any:
        """The value of a variable: of the stage, or else of the recipe, whose variables know nothing of the stage."""
        raw = self.section.variables
        if self.outer and (key not in raw or self.path[-1:] == [key]):  # num_epochs: eval(num_epochs) in a stage
            return self.outer.variable(key, place)
        if key in self.known:
            value, cost = self.known[key]
            self.spend(cost, place)
            return value
        if key not in raw:
            raise RecipeError(self.name, place, f"eval: no variable {key[:80]}.{nearest(key, raw)}")
        if key in self.path:
            way = " -> ".join([*self.path[self.path.index(key) :], key])
            raise RecipeError(self.name, place, f"variables that need each other: {way}")
        if len(self.path) >= MAX_DEPTH:
            raise RecipeError(self.name, place, f"variables that need more than {MAX_DEPTH} others in a row")
        before = self.top.spent
        self.path.append(key)
        value = self.value(raw[key], self.section.places.get(key, place))
        self.path.pop()
        self.known[key] = value, self.top.spent - before
        return value

    def spend(self, values: int, place: Place | None) -> None:
        """Count what comes out: aliases and eval(...) let a short recipe say very much."""
        self.top.spent += values
        if self.top.spent > MAX_VALUES:
            raise RecipeError(self.name, place, f"more than {MAX_VALUES} values")

    def value(self, value: Any, place: Place | None) -> Any:
        """``value`` with each eval(...) in it replaced by what it comes to; keys of mappings stay."""
        self.spend(1, place)
        if isinstance(value, dict):
            return {key: self.value(each, place) for key, each in value.items()}
        if isinstance(value, list):
            return [self.value(each, place) for each in value]
        if isinstance(value, Tagged):
            raise RecipeError(self.name, place, f"!{value.name} in a value; modifiers stand in a list of their own")
        found = EVAL.fullmatch(value) if isinstance(value, str) else None
        if not found:
            return value
        if re.fullmatch(r"\w+", found[1]) and not found[1][0].isdigit():
            return self.variable(found[1], place)  # lists and texts too
        self.spend(len(found[1]) // 10, place)
        try:
            return evaluate(found[1], lambda key: self.number(key, place))
        except ExpressionError as error:
            raise RecipeError(self.name, place, f"{value[:80]}: {error}") from error

    def number(self, key: str, place: Place | None) -> int | float:
        """The value of a variable that is calculated with."""
        value = self.variable(key, place)
        number = as_number(value)
        if number is None:
            raise RecipeError(self.name, place, f"eval: {key} is {reprlib.repr(value):.40}, no number")
        return number


def nearest(name: str, known: Iterable[str]) -> str:
    """The right name for a wrong one, and what others there are; some of them, if they are many or long."""
    names = [each for each in known if len(each) <= 80][:80]
    return f"{did_you_mean(name[:80], names)} There are: {', '.join(names) or 'none'}."
