"""The settings in force at each step of a recipe's run, computed without running it.

Rates, sparsities and phases come from the same functions of clock and step that the hooks call in training. ``show``
composes a ``Timeline``, ``render`` writes it as text, ``picture`` draws it. No torch is imported.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TypeVar

from sparse_xp.clock import Clock
from sparse_xp.modifiers import Distillation, Modifier, Quantization
from sparse_xp.modifiers.learning_rate import RateModifier
from sparse_xp.modifiers.modifier_list import ModifierList

M = TypeVar("M", bound=Modifier)


@dataclass(frozen=True)
class Moment:
    """The settings in force in one optimizer step.

    ``rate``: the learning rate, None if no modifier has written it yet. ``sparsity``: by pruning modifier, None where
    the weights decide it. ``quantization``: its phase, None for a recipe without. ``hardness``: the share of the
    distillation losses in the loss, None for a recipe without; where one distillation ends as another begins, both
    act, and their share is larger than either's.
    """

    step: int
    epoch: float
    rate: float | None
    sparsity: dict[str, float | None]
    quantization: str | None
    hardness: float | None


@dataclass
class Timeline:
    """A recipe on a clock.

    ``modifier_list``: its modifiers in the order of a run. ``rate``: the learning rate before any modifier writes it,
    None if unknown. ``tags``: SparseML's tag by the name of the modifier. ``remarks``: for the user.
    """

    name: str
    clock: Clock
    modifier_list: ModifierList
    rate: float | None = None
    tags: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def modifiers(self) -> dict[str, Modifier]:
        """The modifiers by name, in the order of a run."""
        return self.modifier_list.modifiers

    @cached_property
    def levels(self) -> dict[str, dict[int, float | None]]:
        """The scheduled sparsity of each modifier that prunes, by the step from which it holds."""
        levels = {name: modifier.levels_by_step(self.clock) for name, modifier in self.modifiers.items()}
        return {name: by_step for name, by_step in levels.items() if by_step is not None}

    @cached_property
    def changes(self) -> dict[str, list[int]]:
        """The steps of ``levels``, for bisection."""
        return {name: list(levels) for name, levels in self.levels.items()}

    def moment(self, step: int) -> Moment:
        """Return what holds in step number ``step``."""
        quantization = [m.phase(self.clock, step) for m in self.of(Quantization).values()]
        # Each distillation that acts leaves 1 - hardness of the loss so far.
        rest = prod(1 - m.hardness for m in self.of(Distillation).values() if m.is_active(self.clock, step))
        return Moment(
            step,
            self.clock.epoch(step),
            self.rate_at(step),
            {name: self.level(name, step) for name in self.levels},
            quantization[0] if quantization else None,
            round(1 - rest, 12) if self.of(Distillation) else None,
        )

    def of(self, kind: type[M]) -> dict[str, M]:
        """Return the modifiers of a class by name."""
        return {name: modifier for name, modifier in self.modifiers.items() if isinstance(modifier, kind)}

    def rate_at(self, step: int) -> float | None:
        """Return the learning rate of a step: the last one set, in this step or before. None if there is none yet."""
        latest, value = -1, self.rate
        for modifier in self.of(RateModifier).values():
            steps = modifier.active_steps(self.clock)
            written = min(step, steps.stop - 1)
            if steps.start <= written and written >= latest:
                latest, value = written, modifier.rate_at(self.clock, written)
        return value

    def level(self, name: str, step: int) -> float | None:
        """Return the scheduled sparsity of a pruning modifier in a step; None if the weights decide it."""
        steps = self.changes[name]
        before = bisect_right(steps, step)
        return self.levels[name][steps[before - 1]] if before else 0.0

    def moments(self, most: int = 40) -> list[Moment]:
        """Return the first step of each epoch, then the last step of the run.

        With more than ``most`` epochs it is every 2nd, 5th, 10th ... epoch.
        """
        epochs = -(-self.clock.total_steps // self.clock.steps_per_epoch)
        every = next(n for n in (f * 10**power for power in range(12) for f in (1, 2, 5)) if epochs <= n * most)
        steps = [*range(0, self.clock.total_steps, every * self.clock.steps_per_epoch), self.clock.total_steps - 1]
        return [self.moment(step) for step in dict.fromkeys(steps)]
