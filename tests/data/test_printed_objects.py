"""Objects that were printed into a cell."""

from __future__ import annotations

import warnings

import pytest

from sparse_xp.data.printed_objects import parse_printed_object


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ('{"a": [1, null, "b"]}', {"a": [1, None, "b"]}),
        ("{'a': [1, None, -2.5, True]}", {"a": [1, None, -2.5, True]}),
        ("[('a', nan)]", [["a", None]]),
        ("{'a': array(['b', 'c'], dtype=object)}", {"a": ["b", "c"]}),
        ("array([], dtype=int32)", []),
        ("{'a': [np.int64(0), np.str_('b'), np.float64(-0.5)]}", {"a": [0, "b", -0.5]}),
    ],
)
def test_what_was_printed(cell, value):
    assert parse_printed_object(cell) == value


@pytest.mark.parametrize(
    "cell",
    [
        "print(1)",
        "__import__('os')",
        "[x for x in 'a']",
        "{[1]: 2}",
        "{**{}}",
        "{'a'",
        "'a'.b",
        "np.load('a')",
        "np.int64([1])",
        "f'{1}'",
        "b'a'",
        "1 + 1",
        "",
        "\0",
        "[" * 5000,
        "-" * 5000 + "1",
        "9" * 5000,
    ],
)
def test_anything_else_is_refused_and_not_run(cell):
    with pytest.raises(ValueError, match=r"printed|null|digits"):
        parse_printed_object(cell)


def test_an_odd_escape_is_no_warning():
    with warnings.catch_warnings(action="error"):
        assert parse_printed_object(r"['a\d']") == [r"a\d"]
