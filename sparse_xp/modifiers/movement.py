"""Movement pruning: weights go that training moves towards zero (Sanh et al. 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparse_xp.modifiers.gradient_scores import unscaled
from sparse_xp.modifiers.gradual_pruning import GradualPruning

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.modifiers.context import HookContext

#: what SparseML multiplies each term by; only the order of the scores matters
RATE = 0.01


def movement_step(weight: Tensor, gradient: Tensor) -> Tensor:
    """What one update adds to the scores: -0.01 * gradient * weight, float32, of the shape of both.

    Positive where a step against the gradient moves the weight away from zero. Sanh et al. 2020, arXiv:2005.07683,
    section 3: the gradient of the loss with respect to a score of weight w is dL/dW * W.
    """
    return -RATE * gradient.detach().float() * weight.detach().float()


@dataclass(kw_only=True)
class MovementPruning(GradualPruning):
    """Gradual pruning by movement (Sanh et al. 2020, arXiv:2005.07683, with the scores of SparseML).

    Scores gather from the first step of the context, not from ``start``: what is pruned first should have been watched
    for a while. They are made of the gradients as they are before clipping. Pruned weights stay pruned.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.moved: dict[str, Tensor] = {}

    def attach(self, context: HookContext) -> None:
        import torch

        super().attach(context)
        self.moved = {name: torch.zeros_like(w.detach(), dtype=torch.float32) for name, w in self.targets.items()}

    def before_update(self, context: HookContext) -> None:
        super().before_update(context)
        if self.target_reached(context):
            return
        terms = {
            name: movement_step(weight, weight.grad) for name, weight in self.targets.items() if weight.grad is not None
        }
        for name, term in (unscaled(terms, context.accelerator) or {}).items():
            self.moved[name] = self.moved[name].to(term.device).add_(term)  # attached before the model was moved

    def scores(self, context: HookContext) -> dict[str, Tensor]:
        return {
            name: moved.masked_fill(~self.masks[name], -math.inf) if name in self.masks else moved
            for name, moved in self.moved.items()
        }

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"moved": self.moved}
