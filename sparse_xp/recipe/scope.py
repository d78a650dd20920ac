"""The variables of a recipe and of its stages, and the ``eval(...)`` expressions that use them.

A stage sees its own variables and, behind them, those of the recipe outside of stages.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sparse_xp.errors import did_you_mean
from sparse_xp.recipe.expressions import ExpressionError, as_number, evaluate_expression, names_in
from sparse_xp.recipe.loader import MAX_DEPTH, MAX_VALUES, Position, RecipeError, TaggedMapping

EVAL = re.compile(r"eval\((.*)\)", re.DOTALL)


@dataclass
class Section:
    """The recipe outside of stages, or one stage (``name``), as it is written: nothing is resolved yet.

    ``positions``: line and column of each variable.
    """

    modifiers: list[TaggedMapping] = field(default_factory=list)
    variables: dict[str, object] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)
    name: str = ""


class Scope:
    """Resolves the variables and modifiers of a section; ``outer``: the scope of the recipe, for that of a stage."""

    def __init__(self, name: str, section: Section, outer: Scope | None = None):
        self.name, self.section, self.outer = name, section, outer
        self.top: Scope = outer.top if outer else self
        self.spent = 0  # values of the whole recipe so far; counted in the top scope
        self.resolved: dict[str, tuple[object, int]] = {}  # the value of a variable, and how many values it holds
        self.path: list[str] = []  # variables that are being resolved, to find a cycle

    def variables(self) -> dict[str, object]:
        """Return every variable of the section, resolved."""
        return {key: self.variable(key) for key in self.section.variables}

    def modifiers(self) -> list[TaggedMapping]:
        """Return the modifiers of the section, with every expression in them resolved."""
        return [
            replace(
                tagged,
                fields={key: self.value(value, tagged.positions[key]) for key, value in tagged.fields.items()},
                variables={
                    key: self.variables_of(value, tagged.variables.get(key, [])) for key, value in tagged.fields.items()
                },
                stage=self.section.name,
            )
            for tagged in self.section.modifiers
        ]

    def variables_of(self, value: object, aliased: list[str]) -> list[str]:
        """Return the variables that a field uses: those of its eval(...), and those it repeats by an alias."""
        match = EVAL.fullmatch(value) if isinstance(value, str) else None
        known = {*self.section.variables, *(self.outer.section.variables if self.outer else ())}
        return sorted(known & {*aliased, *(names_in(match[1]) if match else ())})

    def variable(self, key: str, position: Position | None = None) -> object:
        """Return the value of a variable: of the stage if it defines one, else of the recipe.

        A variable of the recipe does not see those of the stage. ``position``: where it is used, for messages. Raises
        RecipeError for an unknown variable, a cycle, and a chain that is too long.
        """
        raw = self.section.variables
        # A stage variable may refer to the outer one of the same name: num_epochs: eval(num_epochs).
        if self.outer and (key not in raw or self.path[-1:] == [key]):
            return self.outer.variable(key, position)
        if key in self.resolved:
            value, cost = self.resolved[key]
            self.spend(cost, position)
            return value
        if key not in raw:
            raise RecipeError(self.name, position, f"eval: unknown variable {key[:80]}.{names_hint(key, raw)}")
        if key in self.path:
            cycle = " -> ".join([*self.path[self.path.index(key) :], key])
            raise RecipeError(self.name, position, f"variables that need each other: {cycle}")
        if len(self.path) >= MAX_DEPTH:
            raise RecipeError(self.name, position, f"variables that need more than {MAX_DEPTH} others in a row")
        before = self.top.spent
        self.path.append(key)
        value = self.value(raw[key], self.section.positions.get(key, position))
        self.path.pop()
        self.resolved[key] = value, self.top.spent - before
        return value

    def spend(self, values: int, position: Position | None) -> None:
        """Count values of the result: aliases and eval(...) can blow up a short recipe. Raises RecipeError."""
        self.top.spent += values
        if self.top.spent > MAX_VALUES:
            raise RecipeError(self.name, position, f"more than {MAX_VALUES} values")

    def value(self, value: object, position: Position | None) -> object:
        """Return ``value`` with each eval(...) in it resolved; keys of mappings are left alone. Raises RecipeError."""
        self.spend(1, position)
        if isinstance(value, dict):
            return {key: self.value(child, position) for key, child in value.items()}
        if isinstance(value, list):
            return [self.value(child, position) for child in value]
        if isinstance(value, TaggedMapping):
            raise RecipeError(self.name, position, f"!{value.name} in a value; modifiers stand in a list of their own")
        if not isinstance(value, str) or not (match := EVAL.fullmatch(value)):
            return value
        expression = match[1]
        if re.fullmatch(r"\w+", expression) and not expression[0].isdigit():
            return self.variable(expression, position)  # one variable alone may be a list or a text
        self.spend(len(expression) // 10, position)
        try:
            return evaluate_expression(expression, lambda key: self.number(key, position))
        except ExpressionError as error:
            raise RecipeError(self.name, position, f"{value[:80]}: {error}") from error

    def number(self, key: str, position: Position | None) -> int | float:
        """Return the value of a variable in arithmetic. Raises RecipeError if it is no number."""
        value = self.variable(key, position)
        number = as_number(value)
        if number is None:
            raise RecipeError(self.name, position, f"eval: {key} is {reprlib.repr(value):.40}, not a number")
        return number


def names_hint(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the nearest known name and one with all of them, or the first if they are many."""
    names = [other for other in known if len(other) <= 80][:80]
    return f"{did_you_mean(name[:80], names)} Known: {', '.join(names) or 'none'}."
