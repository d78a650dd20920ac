"""Arithmetic in recipes, ``eval(num_epochs - 2)``: a parser of its own, so that a recipe is never code.

Numbers, variables, ``+ - * / // % **``, signs, parentheses, and ``abs float int max min round``, all as Python
has them. Length, depth and size of numbers are bounded, so that nothing a recipe says takes long.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator

Number = int | float

MAX_LENGTH, MAX_DEPTH, MAX_VALUE = 1000, 50, 1e15

FUNCTIONS: dict[str, Callable[..., Number]] = {
    "abs": abs,
    "float": float,
    "int": int,
    "max": max,
    "min": min,
    "round": round,
}
#: for each operator how tightly it binds, and what it does
OPERATORS: dict[str, tuple[int, Callable[[Number, Number], Number]]] = {
    "+": (1, operator.add),
    "-": (1, operator.sub),
    "*": (2, operator.mul),
    "/": (2, operator.truediv),
    "//": (2, operator.floordiv),
    "%": (2, operator.mod),
    "**": (4, operator.pow),
}
SIGN = 3  # -a ** 2 is -(a ** 2), and -a * b is (-a) * b

_TOKEN = re.compile(r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<sign>\*\*|//|.))")


class ExpressionError(ValueError):
    """What is wrong with an expression, and where (counted from 1)."""


def evaluate(text: str, value_of: Callable[[str], Number]) -> Number:
    """The value of the expression ``text``; ``value_of`` gives that of a variable.

    Raises ExpressionError, and what ``value_of`` raises.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression of {len(text)} characters; {MAX_LENGTH} are allowed")
    return _Parser(text, value_of).whole()


def names_in(text: str) -> set[str]:
    """The variables that an expression mentions."""
    return {token for kind, token, _ in _tokens(text[:MAX_LENGTH]) if kind == "name" and token not in FUNCTIONS}


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    position = 0
    while text[position:].strip():
        found = _TOKEN.match(text, position)
        assert found is not None
        assert found.lastgroup is not None
        position = found.end()
        yield found.lastgroup, found[found.lastgroup], found.start(found.lastgroup) + 1
    yield "end", "", len(text) + 1


class _Parser:
    """Precedence climbing; evaluates on the way."""

    def __init__(self, text: str, value_of: Callable[[str], Number]):
        self.tokens, self.value_of, self.depth = _tokens(text), value_of, 0
        self.advance()

    def advance(self) -> None:
        self.kind, self.token, self.place = next(self.tokens)

    def whole(self) -> Number:
        value = self.expression(0)
        if self.kind != "end":
            raise self.wrong("an operator")
        return _check(value, "the expression")

    def wrong(self, wanted: str) -> ExpressionError:
        found = f"{self.token!r}" if self.token else "the end"
        return ExpressionError(f"found {found} at character {self.place}, want {wanted}")

    def expression(self, binding: int) -> Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH} at character {self.place}")
        value = self.operand()
        while self.token in OPERATORS and OPERATORS[self.token][0] > binding:
            name, place = self.token, self.place
            tightness, operation = OPERATORS[name]
            self.advance()
            right = self.expression(tightness - 1 if name == "**" else tightness)  # 2 ** 3 ** 2 is 2 ** (3 ** 2)
            value = _bounded(operation, name, place, value, right)
        self.depth -= 1
        return value

    def operand(self) -> Number:
        kind, token, place = self.kind, self.token, self.place
        if kind == "end" or (kind == "sign" and token not in ("-", "+", "(")):
            raise self.wrong("a number, a variable or '('")
        self.advance()
        if kind == "number":
            return _bounded(lambda: int(token) if token.isdigit() else float(token), token, place)
        if kind == "name":
            return self.call(token, place) if self.token == "(" else self.variable(token, place)
        if token == "(":
            value = self.expression(0)
            self.close()
            return value
        value = self.expression(SIGN)
        return -value if token == "-" else +value  # of True it makes 1

    def variable(self, name: str, place: int) -> Number:
        if name in FUNCTIONS:
            raise ExpressionError(f"{name} at character {place} is a function: write {name}(...)")
        return self.value_of(name)

    def call(self, name: str, place: int) -> Number:
        if name not in FUNCTIONS:
            raise ExpressionError(f"no function {name} (character {place}); there are {', '.join(FUNCTIONS)}")
        self.advance()
        values = [self.expression(0)]
        while self.token == ",":
            self.advance()
            values.append(self.expression(0))
        self.close()
        if name in ("abs", "float", "int") and len(values) > 1:
            raise ExpressionError(f"{name} at character {place} takes one number, not {len(values)}")
        if name in ("max", "min") and len(values) == 1:
            return values[0]
        return _bounded(FUNCTIONS[name], name, place, *values)

    def close(self) -> None:
        if self.token != ")":
            raise self.wrong("')'")
        self.advance()


def _bounded(operation: Callable[..., Number], name: str, place: int, *values: Number) -> Number:
    """The result, if it is a real number of a size that a recipe can mean, and made without making a larger one."""
    where = f"{name[:20]} at character {place}"
    if name == "round" and len(values) > 1 and abs(values[1]) > 15:  # of -10 ** 9 digits, it would not come back
        raise ExpressionError(f"{where}: want from -15 to 15 digits, not {values[1]}")
    try:
        if name == "**":  # as floats first, for the same reason
            _check(float(values[0]) ** float(values[1]), where)
        return _check(operation(*values), where)
    except OverflowError:
        raise ExpressionError(f"{where}: the result is no number up to {MAX_VALUE:g}") from None
    except (ZeroDivisionError, TypeError, ValueError) as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError(f"{where}: {error}") from error


def _check(value: Number, where: str) -> Number:
    if isinstance(value, complex) or not abs(value) <= MAX_VALUE:  # nan is not either
        raise ExpressionError(f"{where}: the result is no number up to {MAX_VALUE:g}")
    return value


def as_number(value: object) -> int | float | None:
    """A number, or text that is one; None for anything else. True and False are 1 and 0, as in SparseML."""
    if isinstance(value, bool | int | float):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None
