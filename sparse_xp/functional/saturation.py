"""Saturation of 8-bit products on CPUs that add two of them in 16 bits.

Without VNNI, x86 multiplies unsigned by signed 8-bit numbers with ``vpmaddubsw``, which adds two neighbouring products
in a signed 16-bit number and saturates at 32,767 (Intel's manual, PMADDUBSW). With an activation of 255 two weights
stay within that if their magnitudes sum to at most 128. Weights of 7 bits, -63 to 63, always do.
"""

from __future__ import annotations

import numpy as np

#: the largest activation, and the largest sum that the 16-bit number holds
ACTIVATION, SUM = 255, 32_767


def largest_pair(weights: np.ndarray) -> int:
    """Return the largest |w1| + |w2| of any two weights of one output; ``weights``: int8 [in, out].

    Any two, because which ones a kernel adds depends on how it packs the matrix.
    """
    magnitudes = np.sort(np.abs(weights.astype(np.int16)), axis=0)[-2:]
    return int(magnitudes.sum(0).max(initial=0))


def can_saturate(pair: int) -> bool:
    """Return whether two weights whose magnitudes sum to ``pair`` can exceed 16 bits."""
    return ACTIVATION * pair > SUM


def saturating_product(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Multiply uint8 [..., in] by int8 [in, out] as a kernel without VNNI does; int32 [..., out].

    Products are added in pairs of neighbours within 16 bits, and the pairs in 32 bits.
    """
    if len(weights) % 2:  # kernels pad with zeros
        activations = np.concatenate([activations, np.zeros_like(activations[..., :1])], axis=-1)
        weights = np.concatenate([weights, np.zeros_like(weights[:1])])
    products = activations.astype(np.int32)[..., :, None] * weights.astype(np.int32)
    pairs = products[..., 0::2, :] + products[..., 1::2, :]
    total: np.ndarray = pairs.clip(-SUM - 1, SUM).sum(-2, dtype=np.int32)
    return total
