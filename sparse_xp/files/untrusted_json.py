"""Parse JSON that anybody may have written: bounded depth, bounded numbers, an object or a list at the top."""

from __future__ import annotations

import json
from typing import Any

#: how deep the JSON of a checkpoint may be nested; transformers and tokenizers walk it recursively
MAX_JSON_DEPTH = 100
#: digits of a whole number in JSON: those of 64 bits, and to spare
MAX_DIGITS = 100


def parse_json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``. Raises ValueError or RecursionError for anything else."""
    found = json.loads(data.decode("utf-8"), parse_int=_parse_integer)
    if not isinstance(found, dict):
        raise ValueError(f"it holds {json_type(found)} in place of a JSON object")
    _check_depth(found)
    return found


def parse_json_list(data: bytes) -> list[Any]:
    """Return the JSON list in ``data``. Raises ValueError or RecursionError for anything else."""
    found = json.loads(data.decode("utf-8"), parse_int=_parse_integer)
    if not isinstance(found, list):
        raise ValueError(f"it holds {json_type(found)} in place of a JSON list")
    _check_depth(found)
    return found


def _check_depth(found: dict[str, Any] | list[Any]) -> None:
    """Raise RecursionError for JSON that is nested deeper than ``MAX_JSON_DEPTH``."""
    level: list[Any] = [found]
    for _ in range(MAX_JSON_DEPTH):
        inner = (child for each in level for child in (each.values() if isinstance(each, dict) else each))
        level = [child for child in inner if isinstance(child, dict | list)]
        if not level:
            return
    raise RecursionError


def _parse_integer(digits: str) -> int:
    """Return the integer in a text. Raises ValueError for more than ``MAX_DIGITS`` digits."""
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)


def json_type(value: object) -> str:
    """Return the name of the JSON type of ``value``, with its article, for a message."""
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")


def is_count(value: object) -> bool:
    """Return whether ``value`` is an integer of at least 0 (True and False are not)."""
    return type(value) is int and value >= 0
