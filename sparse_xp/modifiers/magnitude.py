"""Magnitude pruning: prune the weights with the smallest absolute values, along a schedule.

torch is imported late, inside the hooks: composing a configuration must not load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparse_xp.modifiers.gradual_pruning import GradualPruning
from sparse_xp.modifiers.pruning import decay_remembered

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.modifiers.context import HookContext


@dataclass(kw_only=True)
class MagnitudePruning(GradualPruning):
    """Gradual magnitude pruning: the weights with the smallest absolute values are pruned.

    Zhu & Gupta 2017 (arXiv:1710.01878); Gale et al. 2019 (arXiv:1902.09574).

    The other options are those of ``GradualPruning``.

    Attributes:
        regrow: Remember the value that a weight had when it was pruned, shrunk by weight decay since. A later update
            can then choose it again, with that value. By default a pruned weight is zero, so later updates prune it
            again first.
    """

    regrow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.values: dict[str, Tensor] = {}  # of the pruned weights, 0 elsewhere

    def attach(self, context: HookContext) -> None:
        super().attach(context)
        self.values = {}

    def after_update(self, context: HookContext) -> None:
        super().after_update(context)
        if self.values:
            decay_remembered(self.values, self.targets, context.optimizer)

    def prune(self, context: HookContext, levels: dict[str, float]) -> None:
        # Scores are computed on the dense weights: pruned weights get their values back before the masks change.
        for name, value in self.values.items():
            self.targets[name].data.add_(value)
        super().prune(context, levels)
        if self.regrow:
            self.values = {name: self.targets[name].detach() * ~mask for name, mask in self.masks.items()}

    def scores(self, context: HookContext) -> dict[str, Tensor]:
        from sparse_xp.functional.masks import magnitude_scores

        return {name: magnitude_scores(weight) for name, weight in self.targets.items()}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "values": self.values}
