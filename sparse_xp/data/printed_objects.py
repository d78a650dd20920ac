"""Read objects that were printed into a cell of CSV: as JSON, or as Python, pandas and numpy print a dictionary."""

from __future__ import annotations

import ast
import json
import re
import warnings

#: types whose values numpy prints as ``np.int64(0)``
NUMPY_SCALAR = re.compile(r"(u?int|float)\d+|str_|bool_?")
#: why a text is refused, as a part of a sentence
NOTHING = "expected a list or an object, written as JSON or printed by Python"


def parse_printed_object(cell: str) -> object:
    """Return the value that was printed: of dictionaries, lists, texts and numbers. Nothing in it is executed.

    ``array([...], dtype=object)``, as numpy prints it, is its list. Raises ValueError for anything else.
    """
    try:
        value: object = json.loads(cell)
        return value
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings(action="ignore"):  # of an odd escape in a text
            return _plain(ast.parse(cell.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(NOTHING) from error


def _plain(node: ast.expr) -> object:
    """Return the value of a literal. Raises ValueError for any other expression."""
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Name(id="nan"):
            return None
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_plain(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
            if all(isinstance(name, str) for name in names):
                return {name: _plain(value) for name, value in zip(names, values, strict=True)}
        case ast.Call(func=ast.Name(id="array"), args=[items]):
            return _plain(items)
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="np" | "numpy"), attr=kind),
            args=[ast.Constant() | ast.UnaryOp() as item],
        ):
            if NUMPY_SCALAR.fullmatch(kind):
                return _plain(item)
    raise ValueError(NOTHING)
