"""Pooling: padding changes nothing."""

from __future__ import annotations

import pytest
from torch import tensor

from sparse_xp.functional.pooling import POOLINGS, pool

#: one text of two tokens and padding
TOKENS = tensor([[[1.0, -4.0], [3.0, -2.0], [9.0, 9.0]]])
MASK = tensor([[1, 1, 0]])


@pytest.mark.parametrize(("pooling", "expected"), [("mean", [2, -3]), ("cls", [1, -4]), ("max", [3, -2])])
def test_padding_is_left_out(pooling: str, expected: list[float]):
    assert pool(TOKENS, MASK, pooling).tolist() == [expected]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_no_mask_is_a_mask_without_padding(pooling: str):
    whole = TOKENS[:, :2]

    assert pool(whole, None, pooling).tolist() == pool(TOKENS, MASK, pooling).tolist()
