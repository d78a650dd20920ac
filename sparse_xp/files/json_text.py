"""Write JSON that every reader accepts: JSON has no NaN and no infinity, which Python's writer makes nevertheless."""

from __future__ import annotations

import json
import math
from typing import Any

#: the text that stands for a number that is not finite, as in the JSON of Protocol Buffers
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json(value: object, **options: Any) -> str:
    """Return ``value`` as JSON; numbers that are not finite become texts. ``options``: those of ``json.dumps``."""
    return json.dumps(_finite(value), allow_nan=False, **options)


def restore_numbers(value: Any) -> Any:
    """Return a value read from JSON with the texts of ``to_json`` as numbers again.

    Only for values without texts of their own, or with texts that cannot be mistaken.
    """
    if isinstance(value, dict):
        return {name: restore_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [restore_numbers(item) for item in value]
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def _finite(value: object) -> object:
    """Return ``value`` with a text in place of every number that is not finite."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
