"""Values of JSON against the fields of a dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from sparse_xp.schema import check_types, fits


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (1, float, True),
        (1.0, int, False),
        (True, int, False),
        (True, float, False),
        (True, bool, True),
        (1, bool, False),
        (None, int | None, True),
        (None, int, False),
        ("a", int | str, True),
        (["a"], list[str], True),
        (["a", 1], list[str], False),
        ({"a": 1}, dict[str, float], True),
        ({"a": None}, dict[str, float], False),
        ([], dict[str, float], False),
    ],
)
def test_a_value_fits_its_annotation(value, hint, expected):
    assert fits(value, hint) is expected


@pytest.mark.parametrize(
    ("value", "hint"), [(float("nan"), float), (float("inf"), float), (1 << 40, int), ("\udcff", str)]
)
def test_bounded_values(value, hint):
    assert fits(value, hint)
    assert not fits(value, hint, bounded=True)
    assert not fits([value], list[hint], bounded=True)


@dataclass
class Inner:
    share: float


@dataclass
class Outer:
    seed: int
    inner: Inner
    names: list[str] = field(default_factory=list)


def test_a_wrong_field_is_named_at_any_depth():
    check_types(Outer(1, Inner(0.5), ["a"]))
    with pytest.raises(TypeError, match="seed is 'x'"):
        check_types(Outer("x", Inner(0.5)))
    with pytest.raises(TypeError, match="share is None"):
        check_types(Outer(1, Inner(None)))
    with pytest.raises(TypeError, match=r"names is \[1\]"):
        check_types(Outer(1, Inner(0.5), [1]))
