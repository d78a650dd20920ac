"""Mask types, read and refused."""

from __future__ import annotations

import pytest

from sparse_xp.functional.patterns import Pattern, check_n_m, parse_mask_type, with_n


@pytest.mark.parametrize(
    ("mask_type", "expected"),
    [
        ("unstructured", Pattern(kind="unstructured")),
        ("block4", Pattern(kind="block", rows=1, cols=4, pad=True)),
        ([1, 4], Pattern(kind="block", rows=1, cols=4)),
        ((4, 1), Pattern(kind="block", rows=4, cols=1)),
        ([16, 8], Pattern(kind="block", rows=16, cols=8)),
        ("[1, 4]", Pattern(kind="block", rows=1, cols=4)),
        ("32x16", Pattern(kind="block", rows=32, cols=16)),
        ("2:4", Pattern(kind="n_m", n=2, m=4)),
        ("1 : 16", Pattern(kind="n_m", n=1, m=16)),
    ],
)
def test_mask_types(mask_type, expected):
    assert parse_mask_type(mask_type) == expected


@pytest.mark.parametrize(
    "mask_type",
    [
        "channel",
        "filter",
        "block",
        "",
        "4:2",
        "4:4",
        "0:4",
        "2:4:8",
        "0x4",
        [4],
        [1, 0],
        [1, -4],
        [1, 4, 1],
        [1.5, 4],
    ],
)
def test_other_mask_types_are_refused_with_the_list(mask_type):
    with pytest.raises(ValueError, match=r"'unstructured', 'block4', .*'2:4'.*structured pruning") as caught:
        parse_mask_type(mask_type)
    assert repr(mask_type) in str(caught.value)


def test_n_m_fixes_the_final_sparsity():
    two_of_four, one_of_four = parse_mask_type("2:4"), parse_mask_type("1:4")
    check_n_m(two_of_four, 0.5)
    check_n_m(two_of_four, 0.51)
    check_n_m(one_of_four, 0.74)
    check_n_m(Pattern(), 0.9)
    with pytest.raises(ValueError, match=r"'2:4' keeps 2 of every 4 inputs, .* must be 0.5, not 0.8"):
        check_n_m(two_of_four, 0.8)
    with pytest.raises(ValueError, match=r"must be 0.75, not 0.73"):
        check_n_m(one_of_four, 0.73)


@pytest.mark.parametrize(
    ("mask_type", "sparsity", "expected"),
    [
        ("N:4", 0.5, "2:4"), ("N:4", 0.75, "1:4"), ("N:4", 0.25, "3:4"), ("n : 8", 0.875, "1:8"), ("N:8", 0.5, "4:8"),
        ("N:16", 0.8125, "3:16"), ("N:16", 0.94, "1:16"), ("N:32", 0.9, "3:32"), ("2:4", 0.8, "2:4"),
        ("unstructured", 0.8, "unstructured"), ([1, 4], 0.8, [1, 4]), ("N:1", 0.5, "N:1"),
    ],
)  # fmt: skip
def test_the_sparsity_says_how_many_of_a_group_are_kept(mask_type, sparsity, expected):
    assert with_n(mask_type, sparsity) == expected


@pytest.mark.parametrize(
    ("mask_type", "sparsity", "message"),
    [
        ("N:4", 0.8, r"every 4 inputs: a sparsity of 0\.8 is not possible\. Write recipe\.sparsity=0\.75 \(1:4\)"),
        ("N:4", 0.6, r"Write recipe\.sparsity=0\.5 \(2:4\) or 0\.75 \(1:4\), or mask_type=N:32"),
        ("N:8", 0.8, r"Write recipe\.sparsity=0\.75 \(2:8\) or 0\.875 \(1:8\)"),
        ("N:4", 0.9, r"Write recipe\.sparsity=0\.75 \(1:4\), or mask_type=N:32"),
        ("N:4", 0.1, r"Write recipe\.sparsity=0\.25 \(3:4\), or mask_type=N:32"),
    ],
)
def test_a_sparsity_that_no_group_has_is_answered_with_the_nearest(mask_type, sparsity, message):
    with pytest.raises(ValueError, match=message):
        with_n(mask_type, sparsity)
