"""What holds when in a run of a recipe, from the same pure functions of clock and step as training. No torch."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from math import prod
from typing import Any

from sparse_xp.clock import Clock
from sparse_xp.modifiers import ConstantPruning, Distillation, Modifier, Quantization, StructuredPruning
from sparse_xp.modifiers.hooks import Recipe
from sparse_xp.modifiers.learning_rate import DrivesRate
from sparse_xp.modifiers.pruning import GradualPruning, Pruning

#: how a stretch of a bar is drawn
ACTS, HOLDS = "=", "-"


@dataclass(frozen=True)
class Moment:
    """One step. ``rate``: None if no modifier has written it yet. ``sparsity``: None where the weights decide.

    ``hardness``: what distillation takes of the loss; more than either where one ends as another begins.
    """

    step: int
    epoch: float
    rate: float | None
    sparsity: dict[str, float | None]
    quantization: str | None
    hardness: float | None


@dataclass
class Timeline:
    """A recipe on a clock. ``modifiers``: in the order of a run. ``tags``: of SparseML, by modifier."""

    name: str
    clock: Clock
    recipe: Recipe
    rate: float | None = None
    tags: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def modifiers(self) -> dict[str, Modifier]:
        return self.recipe.modifiers

    @cached_property
    def levels(self) -> dict[str, dict[int, float | None]]:
        """The scheduled sparsity of each pruning modifier, by the step from which it holds."""
        pruners = {n: m for n, m in self.modifiers.items() if isinstance(m, Pruning | StructuredPruning)}
        return {name: modifier.levels_by_step(self.clock) for name, modifier in pruners.items()}

    @cached_property
    def changes(self) -> dict[str, list[int]]:
        """The steps of ``levels``, for bisection."""
        return {name: list(levels) for name, levels in self.levels.items()}

    def moment(self, step: int) -> Moment:
        """What holds in step number ``step``."""
        quantization = [m.phase(self.clock, step) for m in self.of(Quantization).values()]
        left = prod(1 - m.hardness for m in self.of(Distillation).values() if m.acts(self.clock, step))
        return Moment(
            step,
            self.clock.epoch(step),
            self.rate_at(step),
            {name: self.level(name, step) for name in self.levels},
            quantization[0] if quantization else None,
            round(1 - left, 12) if self.of(Distillation) else None,
        )

    def of(self, kind: type[Any]) -> dict[str, Any]:
        """The modifiers of a class."""
        return {name: modifier for name, modifier in self.modifiers.items() if isinstance(modifier, kind)}

    def rate_at(self, step: int) -> float | None:
        """The learning rate of a step: what was written last, in the step or before it, by the last that wrote."""
        latest, value = -1, self.rate
        for modifier in self.of(DrivesRate).values():
            steps = modifier.writes(self.clock)
            written = min(step, steps.stop - 1)
            if steps.start <= written and written >= latest:
                latest, value = written, modifier.rate_at(self.clock, written)
        return value

    def level(self, name: str, step: int) -> float | None:
        """The scheduled sparsity of a pruning modifier in a step."""
        steps = self.changes[name]
        before = bisect_right(steps, step)
        return self.levels[name][steps[before - 1]] if before else 0.0

    def moments(self, most: int = 40) -> list[Moment]:
        """The first step of each epoch, or of every 2nd, 5th, 10th ..., then the last step of the run."""
        epochs = -(-self.clock.total_steps // self.clock.steps_per_epoch)
        every = next(n for n in (f * 10**power for power in range(12) for f in (1, 2, 5)) if epochs <= n * most)
        steps = [*range(0, self.clock.total_steps, every * self.clock.steps_per_epoch), self.clock.total_steps - 1]
        return [self.moment(step) for step in dict.fromkeys(steps)]

    def spans(self, name: str) -> list[tuple[float, float, str]]:
        """The stretches of a modifier's bar, in epochs: where it acts, and where what it did is held."""
        modifier, stop = self.modifiers[name], self.clock.end
        start, end = modifier.window(self.clock)
        if isinstance(modifier, ConstantPruning):
            return [(start, stop, HOLDS)]
        if isinstance(modifier, Quantization) and modifier.late:
            return []  # after training
        if isinstance(modifier, Quantization) and modifier.observers_end is not None:
            frozen = min(stop, self.clock.at(modifier.observers_end))
            return [(start, frozen, ACTS), (frozen, stop, HOLDS)]
        if isinstance(modifier, Pruning | StructuredPruning):
            kept = getattr(modifier, "leave_enabled", True)
            end = (
                stop
                if isinstance(modifier, GradualPruning | StructuredPruning) and stop - end <= self.clock.epoch(1)
                else end
            )
            return [(start, end, ACTS), *([(end, stop, HOLDS)] if kept and end < stop else [])]
        return [(start, end, ACTS)]


def changed_fields(modifier: Modifier) -> dict[str, Any]:
    """The fields that are not at their defaults; of a field without a default always."""
    found = {}
    for each in fields(modifier):
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        value = getattr(modifier, each.name)
        if type(value) is not type(default) or value != default:
            found[each.name] = value
    return found
