"""Masks against numbers worked out by hand, and against the rule written as plain Python.

Some of the expected values were recorded from SparseML 1.x: the comments say which.
"""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from sparse_xp.functional.masks import global_masks, magnitude_scores, mask_from_scores
from sparse_xp.functional.patterns import Pattern, parse_mask_type
from sparse_xp.functional.sparsity import count_zeros

UNSTRUCTURED = Pattern()


def bits(mask: Tensor) -> str:
    """``10 / 01`` for a 2 x 2 mask, ``10`` for a vector."""
    assert mask.dtype == torch.bool
    return " / ".join("".join(str(int(bit)) for bit in row) for row in mask.reshape(-1, mask.shape[-1]))


W = torch.tensor(
    [
        [0.9, -0.1, 0.2, 0.3, 0.05, 0.05, 0.05, 0.05],
        [0.4, 0.4, 0.4, 0.4, -1.0, 0.0, 0.0, 0.0],
        [0.01, 0.02, 0.03, 0.04, 0.5, 0.5, 0.5, 0.6],
        [0.3, -0.3, 0.3, -0.3, 0.2, 0.2, 0.2, 0.2],
    ]
)


@pytest.mark.parametrize(
    ("mask_type", "sparsity", "expected"),
    [
        ("unstructured", 0.5, "10110000 / 11111000 / 00001111 / 11110000"),
        ("block4", 0.5, "11110000 / 11110000 / 00001111 / 11110000"),
        ([1, 4], 0.5, "11110000 / 11110000 / 00001111 / 11110000"),
        ([4, 1], 0.5, "10111000 / 10111000 / 10111000 / 10111000"),
        ("2:4", 0.5, "10010011 / 00111001 / 00110011 / 00110011"),
        ("1:4", 0.75, "10000001 / 00011000 / 00010001 / 00010001"),
        # 3.5 and 4.5 of the 8 blocks both round to 4.
        ([1, 4], 0.4375, "11110000 / 11110000 / 00001111 / 11110000"),
        ([1, 4], 0.5625, "11110000 / 11110000 / 00001111 / 11110000"),
        # 2.0, 2.4 and 2.5 blocks: the two with means .025 (row 2) and .05 (row 0).
        ([1, 4], 0.25, "11110000 / 11111111 / 00001111 / 11111111"),
        ([1, 4], 0.3, "11110000 / 11111111 / 00001111 / 11111111"),
        ([1, 4], 0.3125, "11110000 / 11111111 / 00001111 / 11111111"),
    ],
)
def test_masks_of_sparseml(mask_type, sparsity, expected):  # recorded from SparseML 1.x
    assert bits(mask_from_scores(magnitude_scores(W), sparsity, parse_mask_type(mask_type))) == expected


@pytest.mark.parametrize(
    ("mask_type", "expected"),
    [
        ([2, 4], "11110000 / 11110000 / 00001111 / 00001111"),  # tile means .3875 .15 / .1625 .3625
        ([4, 4], "11110000 / 11110000 / 11110000 / 11110000"),  # .275 .25625
    ],
)
def test_tiles_are_real_tiles(mask_type, expected):  # SparseML took runs of a*b elements in row-major order
    assert bits(mask_from_scores(magnitude_scores(W), 0.5, parse_mask_type(mask_type))) == expected


@pytest.mark.parametrize(("sparsity", "pruned"), [(0.1, 0), (0.3, 2), (0.5, 2), (0.7, 4), (0.9, 4)])
def test_halves_round_to_even(sparsity, pruned):  # recorded from SparseML 1.x
    assert count_zeros(mask_from_scores(torch.arange(5.0), sparsity, UNSTRUCTURED)) == pruned


@pytest.mark.parametrize(
    ("scores", "sparsity", "mask_type", "expected"),
    [
        ([1, 1, 1, 2, 2, 2, 3, 3], 0.5, "unstructured", "00011011"),
        ([1, 1, 1, 2, 2, 2, 3, 3], 0.625, "unstructured", "00010011"),
        # Threshold = minimum: SparseML draws lots here (001..., 10000111), we keep the earliest as elsewhere.
        ([1, 1, 1, 2, 2, 2, 3, 3], 0.25, "unstructured", "10011111"),
        ([0, 0, 0, 0, 0, 0, 1, 2], 0.5, "unstructured", "11000011"),
        ([1, 2, 3, 4, 5, 6], 0.5, "block4", "000011"),
        ([9, 9, 9, 9, 0, 1], 0.5, "block4", "111100"),
        ([1, 2, 3], 0.0, "block4", "111"),
        ([1, 2, 3], 1.0, "block4", "000"),
    ],
)
def test_ties_and_remainders(scores, sparsity, mask_type, expected):  # recorded from SparseML 1.x
    mask = mask_from_scores(torch.tensor([scores]), sparsity, parse_mask_type(mask_type))
    assert bits(mask) == expected


@pytest.mark.parametrize("mask_type", ["unstructured", "block4", [2, 4], [4, 1]])
def test_sparsity_0_keeps_all_and_1_keeps_none(mask_type):
    pattern = parse_mask_type(mask_type)
    assert mask_from_scores(torch.zeros(4, 8), 0.0, pattern).all()
    assert not mask_from_scores(torch.ones(4, 8), 1.0, pattern).any()


def test_n_m_comes_at_once_when_the_schedule_leaves_0():
    pattern = parse_mask_type("2:4")
    assert bits(mask_from_scores(W, 0.0, pattern)[:1]) == "11111111"
    assert bits(mask_from_scores(W.abs(), 0.01, pattern)[:1]) == "10010011"


def test_scores_may_be_negative_or_infinite():
    scores = torch.tensor([-0.005, float("-inf"), 0.02, float("inf"), float("-inf"), -3.0])
    assert bits(mask_from_scores(scores, 0.5, UNSTRUCTURED)) == "101100"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_magnitude_scores_are_float32(dtype):
    weight = nn.Parameter(torch.tensor([-2.0, 0.5, -0.0], dtype=dtype))
    scores = magnitude_scores(weight)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    assert scores.tolist() == [2.0, 0.5, 0.0]


def test_one_threshold_over_all_tensors():
    scores = {"a": torch.tensor([1.0, 2, 3, 4]), "b": torch.tensor([0.1, 0.2, 0.3, 10])}
    masks = global_masks(scores, 0.5, UNSTRUCTURED)
    assert {name: bits(mask) for name, mask in masks.items()} == {"a": "0111", "b": "0001"}


def test_global_blocks_are_scored_before_they_are_compared():
    # Block means 1 and 7.5 against 2 and 3, of different shapes; the single 30 saves its whole block.
    scores = {"a": torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 30]]), "b": torch.tensor([[2.0] * 4, [3.0] * 4])}
    masks = global_masks(scores, 0.75, parse_mask_type([1, 4]))
    assert {name: bits(mask) for name, mask in masks.items()} == {"a": "00001111", "b": "0000 / 0000"}


def test_global_n_m_and_no_tensors():
    masks = global_masks({"a": W.abs()[:1], "b": W.abs()[1:2]}, 0.5, parse_mask_type("2:4"))
    assert {name: bits(mask) for name, mask in masks.items()} == {"a": "10010011", "b": "00111001"}
    assert global_masks({}, 0.5, UNSTRUCTURED) == {}


def test_global_masks_do_not_share_storage():
    masks = global_masks({"a": torch.rand(4), "b": torch.rand(1000)}, 0.5, UNSTRUCTURED)
    assert masks["a"].untyped_storage().nbytes() == 4


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, 80, float("nan")])
def test_sparsity_is_a_fraction(sparsity):
    with pytest.raises(ValueError, match=r"expected a fraction in \[0, 1\]"):
        mask_from_scores(W, sparsity, UNSTRUCTURED)


@pytest.mark.parametrize("mask_type", ["unstructured", "block4", [2, 4], "2:4"])
def test_nan_is_an_error_at_any_sparsity(mask_type):
    scores = W.clone()
    scores[1, 6] = float("nan")
    with pytest.raises(ValueError, match=r"'layer\.weight' hold NaN: its weights hold NaN"):
        global_masks({"layer.weight": scores}, 0.0, parse_mask_type(mask_type))


@pytest.mark.parametrize(
    ("shape", "mask_type", "message"),
    [
        ((4, 6), [1, 4], r"shape \(4, 6\) .*blocks \[1, 4\]"),
        ((6, 4), [4, 1], r"shape \(6, 4\) .*blocks \[4, 1\]"),
        ((4, 6), "2:4", r"shape \(4, 6\) .*'2:4'"),
        ((8,), [1, 4], r"shape \(8,\)"),
        ((8,), "block4", r"shape \(8,\)"),
        ((8, 4, 3, 3), "2:4", r"shape \(8, 4, 3, 3\)"),
    ],
)
def test_shapes_that_a_pattern_does_not_divide(shape, mask_type, message):
    with pytest.raises(ValueError, match=message):
        mask_from_scores(torch.rand(shape), 0.5, parse_mask_type(mask_type))


# Masks of random tensors against the rule written as plain Python


def kept_by_rule(scores: list[float], sparsity: float) -> list[bool]:
    """Sort by score, equal scores from the last index to the first, and prune from the front."""
    order = sorted(range(len(scores)), key=lambda index: (scores[index], -index))
    pruned = set(order[: round(len(scores) * sparsity)])
    return [index not in pruned for index in range(len(scores))]


def draws(count: int):
    """Seeded (tensor maker, sparsity) pairs; few distinct scores, so that ties are the rule."""
    dice = random.Random(20170817)
    for _ in range(count):
        generator = torch.Generator().manual_seed(dice.randrange(2**31))
        levels = dice.choice([1, 2, 5, 1000])
        sparsity = dice.choice([dice.random(), dice.randrange(17) / 16])
        yield (
            dice.randint(1, 9),
            dice.randint(1, 9),
            sparsity,
            lambda *shape, g=generator, high=levels: torch.randint(-high, high, shape, generator=g).float(),
        )


def test_unstructured_masks_follow_the_rule():
    for rows, cols, sparsity, make in draws(150):
        scores = make(rows, cols)
        mask = mask_from_scores(scores, sparsity, UNSTRUCTURED)
        assert count_zeros(mask) == round(rows * cols * sparsity)
        assert mask.flatten().tolist() == kept_by_rule(scores.flatten().tolist(), sparsity)


@pytest.mark.parametrize(("height", "width"), [(1, 4), (4, 1), (2, 3), (16, 16)])
def test_block_masks_follow_the_rule(height, width):
    for down, across, sparsity, make in draws(60):
        scores = make(down * height, across * width)
        tiles = [
            scores[i * height : (i + 1) * height, j * width : (j + 1) * width]
            for i in range(down)
            for j in range(across)
        ]
        kept = kept_by_rule([tile.sum().item() for tile in tiles], sparsity)
        expected = torch.tensor(kept).view(down, across).kron(torch.ones(height, width, dtype=torch.bool))
        mask = mask_from_scores(scores, sparsity, parse_mask_type([height, width]))
        assert count_zeros(mask) == round(down * across * sparsity) * height * width
        assert torch.equal(mask, expected)


def test_block4_masks_of_any_width_follow_the_rule():
    for rows, cols, sparsity, make in draws(150):
        scores = make(rows, cols)
        blocks = [block for row in scores for block in row.split(4)]
        kept = kept_by_rule([block.mean().item() for block in blocks], sparsity)
        expected = torch.cat([torch.full_like(block, keep) for block, keep in zip(blocks, kept, strict=True)])
        mask = mask_from_scores(scores, sparsity, parse_mask_type("block4"))
        assert mask.flatten().tolist() == expected.bool().tolist()


def test_global_masks_follow_the_rule():
    for rows, cols, sparsity, make in draws(100):
        scores = {"a": make(rows, cols), "b": make(cols), "c": make(3, rows)}
        masks = global_masks(scores, sparsity, UNSTRUCTURED)
        assert [(name, mask.shape) for name, mask in masks.items()] == [(n, s.shape) for n, s in scores.items()]
        joined = torch.cat([each.flatten() for each in scores.values()])
        kept = torch.cat([each.flatten() for each in masks.values()])
        assert kept.tolist() == kept_by_rule(joined.tolist(), sparsity)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (2, 8)])
def test_n_m_masks_keep_the_highest_n_of_every_m(n, m):
    for rows, runs, _, make in draws(60):
        scores = make(rows, runs * m)
        mask = mask_from_scores(scores, 1 - n / m, parse_mask_type(f"{n}:{m}"))
        for values, kept in zip(scores.view(-1, m).tolist(), mask.view(-1, m).tolist(), strict=True):
            highest = sorted(range(m), key=lambda index: (values[index], index))[m - n :]
            assert [index for index in range(m) if kept[index]] == sorted(highest)
