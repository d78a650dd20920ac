"""Movement pruning: prune the weights that training moves towards zero (Sanh et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparse_xp.modifiers.gradient_scores import unscale
from sparse_xp.modifiers.gradual_pruning import GradualPruning

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.modifiers.context import HookContext

#: SparseML's factor of each term, used so that scores are comparable with SparseML's; only their order matters
SCORE_SCALE = 0.01


def movement_steps(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return the terms that one update adds to the scores: -0.01 * gradient * weight, float32, shaped like the weights.

    A term is positive where gradient descent moves the weight away from zero. Sanh et al. 2020, arXiv:2005.07683,
    section 3: the gradient of the loss with respect to the score of weight W is dL/dW * W.
    """
    import torch

    terms = torch._foreach_mul([gradient.detach().float() for gradient in gradients], -SCORE_SCALE)
    torch._foreach_mul_(terms, [weight.detach().float() for weight in weights])
    return list(terms)


@dataclass(kw_only=True)
class MovementPruning(GradualPruning):
    """Gradual movement pruning (Sanh et al. 2020, arXiv:2005.07683, with the scores of SparseML).

    The score of a weight is the sum of ``movement_steps`` over all steps so far, with gradients as they are before
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
        if not self.target_reached(context):  # later updates need no scores
            self.gather(context)

    def gather(self, context: HookContext) -> None:
        """Add the terms of this step to the scores, unless the gradient scaler is going to skip it."""
        import torch

        trained = {name: weight.grad for name, weight in self.targets.items() if weight.grad is not None}
        if not trained:
            return
        terms = movement_steps([self.targets[name] for name in trained], list(trained.values()))
        infinite = unscale(terms, context.accelerator)
        if infinite is not None:
            for term in terms:
                term.masked_fill_(infinite > 0, 0.0)
        # Scores are made with the modifier; a loop of one's own may have moved its model since.
        self.moved |= {name: self.moved[name].to(term.device) for name, term in zip(trained, terms, strict=True)}
        torch._foreach_add_([self.moved[name] for name in trained], terms)

    def scores(self, context: HookContext) -> dict[str, Tensor]:
        # A pruned weight ranks below all others, so that it stays pruned.
        moved = {name: scores.to(self.targets[name].device) for name, scores in self.moved.items()}
        return {
            name: scores.masked_fill(~self.masks[name].to(scores.device), -math.inf) if name in self.masks else scores
            for name, scores in moved.items()
        }

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"moved": self.moved}
