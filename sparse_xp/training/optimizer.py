"""Parameter groups of the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def parameter_groups(model: nn.Module, others: Sequence[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """Return the parameter groups of AdamW: the one that weight decay applies to, and the one that it spares.

    Matrices decay; biases and LayerNorms do not (Devlin et al. 2019). ``others``: matrices that train beside the model
    (``Modifier.parameters``); they decay and form a third group. ``WeightDecay`` sets the decay itself.
    """
    decaying = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    not_decaying = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decaying, "weight_decay": 0.0},
        {"params": not_decaying, "weight_decay": 0.0},
    ]
    return [*groups, {"params": list(others), "weight_decay": 0.0}] if others else groups
