"""Measuring sparsity: exact zeros over elements, as fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sparse_xp.functional.measured import Sparsity
from sparse_xp.functional.selection import in_encoder, select_parameters


def measure_sparsity(model: nn.Module, prunable: Iterable[str] | None = None) -> Sparsity:
    """Count exact zeros, each tied tensor once. The fractions are over the elements of:

    - ``prunable``: the tensors named by ``prunable``, patterns as in :func:`select_parameters`; by default
      ``__ENCODER__``, the Linear weights of the encoder layers. Recipes and papers state this one.
    - ``encoder``: every parameter inside the encoder layers: weights, biases and LayerNorm (``in_encoder``).
    - ``model``: every parameter of the model, embeddings, pooler and head included.
    - ``layers``: one entry per prunable tensor, in model order, over its own size.

    A fraction of no elements is 0.
    """
    # An encoder may have no Linear at all; what a recipe names has to be there.
    targets = select_parameters(model, "__ENCODER__" if prunable is None else prunable, strict=prunable is not None)
    layers = _count_zeros(targets.items())
    everything, inside = _count_zeros(model.named_parameters()), in_encoder(model)
    return Sparsity(
        prunable=_fraction(layers.values()),
        encoder=_fraction(count for name, count in everything.items() if inside(name)),
        model=_fraction(everything.values()),
        layers={name: _fraction([count]) for name, count in layers.items()},
    )


def count_zeros(tensor: Tensor) -> int:
    """Return the number of elements that are exactly 0 (or -0)."""
    return tensor.numel() - int(torch.count_nonzero(tensor.detach()))


def _count_zeros(parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[str, tuple[int, int]]:
    """Return, by name, the number of zeros and the number of elements of each parameter."""
    return {name: (count_zeros(parameter), parameter.numel()) for name, parameter in parameters}


def _fraction(counts: Iterable[tuple[int, int]]) -> float:
    """Return the zeros of all counts over their elements, 0 if there are no elements."""
    pairs = list(counts)
    elements = sum(size for _, size in pairs)
    return sum(count for count, _ in pairs) / elements if elements else 0.0
