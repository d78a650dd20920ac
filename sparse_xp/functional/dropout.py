"""Dropout that is cheaper on a CPU: sixteen random bits per element in place of a random double.

PyTorch draws a double for every element on a CPU, which for a BERT with attention dropout is a sixth of a bf16 step
(``benchmarks/training.py --profile``). Here one 64-bit draw decides over four elements. It comes from PyTorch's own
generator, so a run still resumes from the saved state of that generator. The probability is rounded to a multiple of
2^-16 (0.1 becomes 0.100006). The scale is the inverse of the rounded share, so the expectation is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

#: the name under which transformers finds ``cheap_attention``
ATTENTION_NAME = "sparse_xp_cpu"


def keep_mask(shape: torch.Size, p: float) -> tuple[Tensor, float]:
    """Return a mask (int16 of ``shape``, 0 with probability ``q``, else 1) and the scale 1 / (1 - q).

    ``q`` is the multiple of 2^-16 nearest to ``p``. The mask is int16 because a CPU multiplies by integers several
    times faster than it selects by a bool mask.
    """
    dropped = round(p * 2**16)
    elements = shape.numel()
    bits = torch.empty((elements + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    mask = torch.empty(shape, dtype=torch.int16)
    torch.ge(bits.view(torch.int16)[:elements].view(shape), dropped - 2**15, out=mask)
    return mask, 2**16 / (2**16 - dropped)


class _DropContext(Protocol):
    """The autograd context, which PyTorch passes from forward to backward; ``scale`` is our own attribute."""

    scale: float

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]: ...

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _DropContext, values: Tensor, p: float) -> Tensor:
        mask, ctx.scale = keep_mask(values.shape, p)
        ctx.save_for_backward(mask)
        return (values * mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: _DropContext, *gradients: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return (gradients[0] * mask).mul_(ctx.scale), None


def drop(values: Tensor, p: float) -> Tensor:
    """Zero each element of ``values`` with probability ``p`` and scale the others up (Srivastava et al. 2014)."""
    dropped: Tensor = _Drop.apply(values, p)  # type: ignore[no-untyped-call]
    return dropped


class CheapDropout(nn.Dropout):
    """``nn.Dropout`` computed by ``drop``."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply dropout to ``input`` of any shape."""
        return drop(input, self.p) if self.training and 0 < self.p < 1 else super().forward(input)


def cheap_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute scaled dot-product attention for transformers, with cheap dropout.

    Maps query, key and value [rows, heads, tokens, width] to [rows, tokens, heads, width]. PyTorch's own attention has
    no fused kernel with dropout on a CPU. Without dropout (evaluation, export) PyTorch's own is used.
    """
    if not dropout:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    query = query * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    scores = query @ key.transpose(2, 3)
    if attention_mask is not None:  # bool, as sdpa_mask makes it
        scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    # PyTorch computes a bf16 softmax in float32 and rounds the result: dtype=float32 gives the same, ten times slower.
    weights = drop(scores.softmax(-1), dropout)
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION_NAME, cheap_attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


@contextmanager
def cheap_dropout(model: PreTrainedModel) -> Iterator[None]:
    """Use cheap dropout in all dropouts and in the attention of ``model``, within the block."""
    plain = [module for module in model.modules() if type(module) is nn.Dropout]
    implementation = model.config._attn_implementation
    for module in plain:
        module.__class__ = CheapDropout
    if implementation == "sdpa":
        model.set_attn_implementation(ATTENTION_NAME)
    try:
        yield
    finally:
        for module in plain:
            module.__class__ = nn.Dropout
        if implementation == "sdpa":
            model.set_attn_implementation(implementation)
