"""Movement pruning: prune the weights that training moves towards zero (Sanh et al. 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparse_xp.modifiers.gradient_scores import unscaled
from sparse_xp.modifiers.gradual_pruning import GradualPruning

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.modifiers.context import HookContext

#: SparseML's factor of each term, used so that scores are comparable with SparseML's; only their order matters
SCORE_SCALE = 0.01


def movement_step(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return the term that one update adds to the scores: -0.01 * gradient * weight, float32, same shape.

    It is positive where gradient descent moves the weight away from zero. Sanh et al. 2020, arXiv:2005.07683,
    section 3: the gradient of the loss with respect to the score of weight W is dL/dW * W.
    """
    return -SCORE_SCALE * gradient.detach().float() * weight.detach().float()


@dataclass(kw_only=True)
class MovementPruning(GradualPruning):
    """Gradual movement pruning (Sanh et al. 2020, arXiv:2005.07683, with the scores of SparseML).

    The score of a weight is the sum of ``movement_step`` over all steps so far, with gradients as they are before
    clipping. Scores accumulate from the first step of the run, not from ``start``, so that early pruning decisions rest
    on enough steps. Pruned weights stay pruned. Options as in ``GradualPruning``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.moved: dict[str, Tensor] = {}  # accumulated scores by target, float32

    def attach(self, context: HookContext) -> None:
        import torch

        super().attach(context)
        self.moved = {name: torch.zeros_like(w.detach(), dtype=torch.float32) for name, w in self.targets.items()}

    def before_update(self, context: HookContext) -> None:
        super().before_update(context)
        if self.target_reached(context):
            return  # no later update needs scores
        terms = {
            name: movement_step(weight, weight.grad) for name, weight in self.targets.items() if weight.grad is not None
        }
        for name, term in (unscaled(terms, context.accelerator) or {}).items():
            self.moved[name] = self.moved[name].to(term.device).add_(term)  # ``attach`` runs before the move to GPU

    def scores(self, context: HookContext) -> dict[str, Tensor]:
        # A pruned weight ranks below all others, so that it stays pruned.
        return {
            name: moved.masked_fill(~self.masks[name], -math.inf) if name in self.masks else moved
            for name, moved in self.moved.items()
        }

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"moved": self.moved}
