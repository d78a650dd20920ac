"""Arithmetic in recipes, ``eval(num_epochs - 2)``: a parser of its own, so that a recipe is never code.

Numbers, variables, ``+ - * / // % **``, signs, parentheses, and ``abs float int max min round``, with
Python's meaning. Length, depth and size of numbers are bounded, so that no expression takes long.
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
#: for each operator its precedence and its function
OPERATORS: dict[str, tuple[int, Callable[[Number, Number], Number]]] = {
    "+": (1, operator.add),
    "-": (1, operator.sub),
    "*": (2, operator.mul),
    "/": (2, operator.truediv),
    "//": (2, operator.floordiv),
    "%": (2, operator.mod),
    "**": (4, operator.pow),
}
#: the precedence of a sign
SIGN = 3  # -a ** 2 is -(a ** 2), and -a * b is (-a) * b

_TOKEN = re.compile(r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<sign>\*\*|//|.))")


class ExpressionError(ValueError):
    """An error in an expression, with the number of the character (from 1)."""


def evaluate_expression(text: str, value_of: Callable[[str], Number]) -> Number:
    """Return the value of the expression ``text``; ``value_of`` returns the value of a variable.

    Raises ExpressionError, and what ``value_of`` raises.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression of {len(text)} characters; {MAX_LENGTH} are allowed")
    return _Parser(text, value_of).result()


def names_in(text: str) -> set[str]:
    """Return the variables that an expression mentions."""
    return {token for kind, token, _ in _tokens(text[:MAX_LENGTH]) if kind == "name" and token not in FUNCTIONS}


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield kind (``number``, ``name``, ``sign``, ``end``), text and position (from 1) of each token."""
    start = 0
    while text[start:].strip():
        match = _TOKEN.match(text, start)
        assert match is not None
        assert match.lastgroup is not None
        start = match.end()
        yield match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1
    yield "end", "", len(text) + 1


class _Parser:
    """A parser by precedence climbing, which evaluates while it parses."""

    def __init__(self, text: str, value_of: Callable[[str], Number]):
        self.tokens, self.value_of, self.depth = _tokens(text), value_of, 0
        self.advance()

    def advance(self) -> None:
        """Go on to the next token."""
        self.kind, self.token, self.position = next(self.tokens)

    def result(self) -> Number:
        """Return the value of the whole text. Raises ExpressionError."""
        value = self.expression(0)
        if self.kind != "end":
            raise self.unexpected("an operator")
        return _check(value, "the expression")

    def unexpected(self, expected: str) -> ExpressionError:
        """Return an error at the present token."""
        token = f"{self.token!r}" if self.token else "the end"
        return ExpressionError(f"found {token} at character {self.position}, expected {expected}")

    def expression(self, binding: int) -> Number:
        """Return the value of operands that are joined by operators of a higher precedence than ``binding``."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH} at character {self.position}")
        value = self.operand()
        while self.token in OPERATORS and OPERATORS[self.token][0] > binding:
            name, position = self.token, self.position
            precedence, operation = OPERATORS[name]
            self.advance()
            right = self.expression(precedence - 1 if name == "**" else precedence)  # 2 ** 3 ** 2 is 2 ** (3 ** 2)
            value = _bounded(operation, name, position, value, right)
        self.depth -= 1
        return value

    def operand(self) -> Number:
        """Return the value of a number, a variable, a call, a parenthesis, or one of these with a sign."""
        kind, token, position = self.kind, self.token, self.position
        if kind == "end" or (kind == "sign" and token not in ("-", "+", "(")):
            raise self.unexpected("a number, a variable or '('")
        self.advance()
        if kind == "number":
            return _bounded(lambda: int(token) if token.isdigit() else float(token), token, position)
        if kind == "name":
            return self.call(token, position) if self.token == "(" else self.variable(token, position)
        if token == "(":
            value = self.expression(0)
            self.close()
            return value
        value = self.expression(SIGN)
        return -value if token == "-" else +value  # +True is 1

    def variable(self, name: str, position: int) -> Number:
        """Return the value of a variable. Raises ExpressionError for the name of a function."""
        if name in FUNCTIONS:
            raise ExpressionError(f"{name} at character {position} is a function: write {name}(...)")
        return self.value_of(name)

    def call(self, name: str, position: int) -> Number:
        """Return the value of ``name(...)``; the parenthesis is the present token."""
        if name not in FUNCTIONS:
            raise ExpressionError(f"unknown function {name} (character {position}). Known: {', '.join(FUNCTIONS)}")
        self.advance()
        values = [self.expression(0)]
        while self.token == ",":
            self.advance()
            values.append(self.expression(0))
        self.close()
        if name in ("abs", "float", "int") and len(values) > 1:
            raise ExpressionError(f"{name} at character {position} takes one number, not {len(values)}")
        if name in ("max", "min") and len(values) == 1:
            return values[0]
        return _bounded(FUNCTIONS[name], name, position, *values)

    def close(self) -> None:
        """Go on behind a closing parenthesis. Raises ExpressionError if there is none."""
        if self.token != ")":
            raise self.unexpected("')'")
        self.advance()


def _bounded(operation: Callable[..., Number], name: str, position: int, *values: Number) -> Number:
    """Return the result of an operation. Raises ExpressionError unless it is a real number up to ``MAX_VALUE``.

    Operations that would first compute a much larger number are refused before.
    """
    where = f"{name[:20]} at character {position}"
    if name == "round" and len(values) > 1 and abs(values[1]) > 15:  # -10 ** 9 digits would take forever
        raise ExpressionError(f"{where}: expected -15 to 15 digits, not {values[1]}")
    try:
        if name == "**":  # as floats first, for the same reason
            _check(float(values[0]) ** float(values[1]), where)
        return _check(operation(*values), where)
    except OverflowError:
        raise ExpressionError(f"{where}: the result is not a number up to {MAX_VALUE:g}") from None
    except (ZeroDivisionError, TypeError, ValueError) as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError(f"{where}: {error}") from error


def _check(value: Number, where: str) -> Number:
    """Return ``value``. Raises ExpressionError unless it is a real number up to ``MAX_VALUE``."""
    if isinstance(value, complex) or not abs(value) <= MAX_VALUE:  # nan is not
        raise ExpressionError(f"{where}: the result is not a number up to {MAX_VALUE:g}")
    return value


def as_number(value: object) -> int | float | None:
    """Return a number, from a number or from text; None for anything else.

    True and False are 1 and 0, as in SparseML.
    """
    if isinstance(value, bool | int | float):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None
