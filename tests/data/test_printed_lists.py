"""Lists that pandas and numpy print into CSV."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparse_xp.data.printed_lists import parse_printed_list


@pytest.mark.parametrize(
    "items",
    [["a", "b"], [], ["it's", 'say "so"', "' and \""], ["a\nb\t\\", "\U0001f600 caf\u00e9", "a\x00b"], [0, -1, 12]],
)
def test_what_python_and_numpy_print_is_read(items):
    assert parse_printed_list(str(items)) == items
    assert parse_printed_list(str(np.array(items))) == items


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        (' ["a", "\\ud83d\\ude00"] ', ["a", "\U0001f600"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("['a',]", ["a"]),
        ("[0. 1.5 2e3]", [0.0, 1.5, 2000.0]),
        ("[True None nan]", [True, None, None]),
        ("[np.int64(0), np.str_('a, b)'), np.float64(0.5), np.True_]", [0, "a, b)", 0.5, True]),
    ],
)
def test_other_ways_to_print(cell, items):
    assert parse_printed_list(cell) == items


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a b", "is no list"),
        ("", "is no list"),
        ("['a'", "is no list"),
        ("['a' ... 'b']", "printed in part only"),
        ("[a, b]", "has 'a' without quotes"),
        ("[__import__('os')]", "has '__import__\\(' without quotes"),
        ("['a', 'b' 'c']", "without a separator before \"'c'\""),
        ("['a''b']", "without a separator"),
        ("[['a']]", "cannot be read from"),
        ("[1,,2]", "cannot be read from"),
        ('["\\ud83d"]', "escapes half of a character"),
        ("['\\U99999999']", "escapes half of a character, or none"),
        ("[" + "1" * 5000 + "]", "without quotes"),
    ],
)
def test_what_is_no_list_of_texts_and_numbers(cell: str, message: Any):
    with pytest.raises(ValueError, match=message):
        parse_printed_list(cell)
