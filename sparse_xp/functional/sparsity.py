"""Measuring sparsity: exact zeros over elements, as fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sparse_xp.functional.measured import Sparsity, Zeros
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
    layers, inside = zeros_by_name(targets.items()), in_encoder(model)
    everything = zeros_by_name(model.named_parameters())
    return Sparsity(
        prunable=Zeros.total(layers.values()).fraction,
        encoder=Zeros.total(zeros for name, zeros in everything.items() if inside(name)).fraction,
        model=Zeros.total(everything.values()).fraction,
        layers={name: zeros.fraction for name, zeros in layers.items()},
    )


def zeros_by_name(parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[str, Zeros]:
    """Return the zeros of each parameter."""
    return {name: Zeros(count_zeros(parameter), parameter.numel()) for name, parameter in parameters}


def count_zeros(tensor: Tensor) -> int:
    """Return the number of elements that are exactly 0 (or -0)."""
    return tensor.numel() - int(torch.count_nonzero(tensor.detach()))
