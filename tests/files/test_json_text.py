"""JSON without NaN and infinity."""

from __future__ import annotations

import json
import math

import pytest

from sparse_xp.files.json_text import restore_numbers, to_json


def refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_survive_as_texts(number):
    value = {"loss": number, "layers": [1.0, (number,)], "name": "a", "none": None}
    text = to_json(value, indent=1)
    stored = json.loads(text, parse_constant=refuse)
    restored = restore_numbers(stored)
    found = [restored["loss"], restored["layers"][1][0]]
    assert [math.isnan(value) for value in found] == [math.isnan(number)] * 2
    assert math.isnan(number) or found == [number] * 2
    assert (restored["name"], restored["none"], restored["layers"][0]) == ("a", None, 1.0)


def test_other_values_are_written_as_by_the_library():
    value = {"b": 1e300, "a": [True, "NaN or not", -0.0], "é": 2}
    assert to_json(value, sort_keys=True) == json.dumps(value, sort_keys=True)
