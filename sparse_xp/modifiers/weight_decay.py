"""Weight decay as a thing with a start, so that a recipe can change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparse_xp.modifiers.base import Modifier

if TYPE_CHECKING:
    from sparse_xp.modifiers.context import HookContext


@dataclass(kw_only=True)
class WeightDecay(Modifier):
    """Decoupled weight decay (AdamW) of ``weight_decay`` from ``start`` on.

    Biases and LayerNorm are left out (Devlin et al. 2019), unless ``all_groups`` says that they decay too, as they
    did under SparseML's SetWeightDecayModifier.
    """

    weight_decay: float = 0.0
    all_groups: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.weight_decay < 1:
            raise ValueError(f"WeightDecay.weight_decay={self.weight_decay}: want a number in [0, 1).")

    @property
    def exclusive_resource(self) -> str:
        return "weight decay"

    def before_step(self, context: HookContext) -> None:
        if context.clock.epoch(context.step) >= self.window(context.clock)[0]:
            for group in context.optimizer.param_groups:
                if group["decays"] or self.all_groups:
                    group["weight_decay"] = self.weight_decay
