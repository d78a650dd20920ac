"""Weight decay as a modifier, so that a recipe can set it and change it during a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparse_xp.errors import UserError
from sparse_xp.modifiers.base import Modifier

if TYPE_CHECKING:
    from sparse_xp.modifiers.context import HookContext


@dataclass(kw_only=True)
class WeightDecay(Modifier):
    """Set the decoupled weight decay of AdamW from ``start`` on (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Attributes:
        start: The time from which it holds, in epochs, ``'N steps'`` or ``'N%'`` of the run.
        end: Not used: it holds until the end of the run.
        weight_decay: The factor of the decay, in [0, 1). Each update subtracts learning rate * ``weight_decay`` *
            weight.
        all_groups: Apply it to the groups of biases and LayerNorms as well, as SparseML's SetWeightDecayModifier did.
            By default they do not decay (Devlin et al. 2019).
    """

    weight_decay: float = 0.0
    all_groups: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.weight_decay < 1:
            raise ValueError(f"WeightDecay.weight_decay={self.weight_decay}: expected a number in [0, 1).")

    @property
    def exclusive_resource(self) -> str:
        return "weight decay"

    def before_step(self, context: HookContext) -> None:
        if not all("weight_decay" in group for group in context.optimizer.param_groups):
            raise UserError(
                f"WeightDecay: {type(context.optimizer).__name__} has no weight decay. Take AdamW, or leave it out."
            )
        if context.clock.epoch(context.step) >= self.window(context.clock)[0]:
            # Set in every step: then a resumed run needs no state for it.
            for group in context.optimizer.param_groups:
                if self.all_groups or any(parameter.ndim > 1 for parameter in group["params"]):
                    group["weight_decay"] = self.weight_decay
