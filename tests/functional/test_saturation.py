"""The product of a CPU that adds two 8-bit products in 16 bits, on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparse_xp.functional.saturation import can_saturate, largest_pair, saturating_product


def column(*weights):
    return np.array(weights, dtype=np.int8)[:, None]


@pytest.mark.parametrize(
    ("activations", "weights", "product"),
    [
        ([2, 3], [4, 5], 23),
        ([255, 255], [127, 127], 32_767),  # 64,770
        ([255, 255], [-127, -127], -32_768),
        ([255, 255], [127, -127], 0),  # signs that cancel need no room
        ([255, 255], [64, 64], 32_640),
        ([255, 255], [65, 64], 32_767),  # 32,895
        ([255, 0, 255, 0], [127, 127, 127, 127], 64_770),  # each pair fits, and pairs are added in 32 bits
        ([255, 255, 255, 255], [127] * 4, 65_534),
        ([255, 255, 255], [1, 1, 127], 510 + 32_385),  # the last has no neighbour
    ],
)
def test_products_by_hand(activations, weights, product):
    assert saturating_product(np.array(activations, dtype=np.uint8), column(*weights)).tolist() == [product]


@pytest.mark.parametrize(
    ("weights", "pair"),
    [([1, 2, 3], 5), ([-127, 0, 5], 132), ([64, 3, -64], 128), ([-128, -128], 256), ([9], 9), ([], 0)],
)
def test_the_largest_pair_by_hand(weights, pair):
    assert largest_pair(column(*weights)) == pair


def test_the_largest_pair_is_of_one_output():
    assert largest_pair(np.array([[100, 0], [0, 100]], dtype=np.int8)) == 100


def test_the_limit():
    assert not can_saturate(128)  # 32,640
    assert can_saturate(129)  # 32,895
    assert not can_saturate(2 * 63)


@pytest.mark.parametrize(("most", "same"), [(63, True), (64, True), (127, False)])
def test_weights_of_7_bits_give_the_exact_product(most, same):
    chance = np.random.default_rng(0)
    activations = chance.choice([0, 1, 254, 255], (50, 33)).astype(np.uint8)
    weights = chance.choice([-most, most], (33, 20)).astype(np.int8)
    exact = activations.astype(np.int64) @ weights.astype(np.int64)
    assert (saturating_product(activations, weights) == exact).all() == same
    assert can_saturate(largest_pair(weights)) != same
