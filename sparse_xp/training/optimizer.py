"""Parameter groups of the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def parameter_groups(model: nn.Module, others: Sequence[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """Return two groups for AdamW: matrices, which decay, and biases and LayerNorms, which do not (Devlin et al. 2019).

    ``others``: matrices that are trained beside the model and decay; they make a third group.
    """
    decaying = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    not_decaying = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decaying, "weight_decay": 0.0, "decays": True},
        {"params": not_decaying, "weight_decay": 0.0, "decays": False},
    ]
    return [*groups, {"params": list(others), "weight_decay": 0.0, "decays": True}] if others else groups
