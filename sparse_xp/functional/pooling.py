"""From the vectors of tokens to the vector of a text."""

from __future__ import annotations

from torch import Tensor

#: the ways to pool, under the names that sentence-transformers gives them
POOLINGS = ("mean", "cls", "max")


def pool(tokens: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Return the vector of each text, [rows, hidden].

    ``tokens``: the vectors of its tokens, [rows, tokens, hidden]. ``mask``: 1 for a token and 0 for padding, [rows,
    tokens]; None if nothing is padded. ``pooling``: the ``mean`` or the maximum (``max``) over the tokens, or the
    vector of the first one (``cls``).
    """
    if pooling == "cls":
        return tokens[:, 0]
    if pooling == "max":
        return tokens.amax(1) if mask is None else tokens.masked_fill(mask[..., None] == 0, float("-inf")).amax(1)
    if mask is None:
        return tokens.mean(1)
    weights = mask[..., None].to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
