"""Check values read from JSON against the annotated fields of a dataclass.

A file may have been edited, or written by another version of sparse_xp. Every reader of a stored dataclass
(``result.json``, ``sweep.json``, ``task.json`` ...) checks it here, so that a wrong value is one message that names the
file and not an error far away from it.
"""

from __future__ import annotations

import math
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def fits(value: object, hint: Any, bounded: bool = False) -> bool:
    """Return whether a value read from JSON may stand in a field annotated with ``hint``.

    An int is accepted for a float, and an object for a nested dataclass. A bool is no number.

    ``bounded``: also refuse numbers that are not finite, integers beyond 32 bits and strings that are not Unicode. A
    result may hold them (the NaN of an undefined ratio, the size of a large file, a path in another encoding).
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return any(fits(value, option, bounded) for option in arguments)
    if origin is list:
        return isinstance(value, list) and all(fits(item, arguments[0], bounded) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(key, arguments[0], bounded) and fits(item, arguments[1], bounded) for key, item in value.items()
        )
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float) and (not bounded or abs(value) < math.inf)
    if hint is int:
        return isinstance(value, int) and (not bounded or abs(value) < 1 << 31)
    if hint is str:
        return isinstance(value, str) and not (bounded and any("\ud800" <= char <= "\udfff" for char in value))
    if is_dataclass(hint):
        return isinstance(value, dict | hint)
    return isinstance(value, hint)


def check_types(record: Any) -> None:
    """Raise TypeError if a field of a dataclass, or of one inside it, has a value of another type than annotated."""
    hints = get_type_hints(type(record))
    for field in fields(record):
        value = getattr(record, field.name)
        if not fits(value, hints[field.name]):
            raise TypeError(f"{field.name} is {value!r:.40}")
        if is_dataclass(value):
            check_types(value)


def from_json(cls: type[T], value: object) -> T:
    """Return the dataclass ``cls`` with the values of a JSON object from an untrusted file (see ``bounded``).

    Raises ValueError for an unknown name or a value of another type, KeyError for a missing field.
    """
    if not isinstance(value, dict):
        raise ValueError(f"expected an object for a {cls.__name__}")
    hints = get_type_hints(cls)
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for name, item in value.items():
        if name not in known:
            raise ValueError(f"{name}: a {cls.__name__} has no such field")
        if not fits(item, hints[name], bounded=True):
            raise ValueError(f"{name}: a value of another type than that of a {cls.__name__}")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise KeyError(name)
    return cls(**value)
