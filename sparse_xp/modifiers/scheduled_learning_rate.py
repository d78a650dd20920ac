"""The learning rate by one of PyTorch's schedulers, as SparseML's ``LearningRateModifier`` has it.

The rate is computed from the step alone, so a resumed run needs no scheduler state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from sparse_xp.clock import Clock
from sparse_xp.errors import did_you_mean
from sparse_xp.modifiers.learning_rate import RateModifier

#: the arguments of each scheduler; times are epochs, and milestones count from the start of the run
SCHEDULERS: dict[str, tuple[str, ...]] = {
    "StepLR": ("step_size", "gamma"),
    "MultiStepLR": ("milestones", "gamma"),
    "ExponentialLR": ("gamma",),
    "CosineAnnealingWarmRestarts": ("lr_min", "cycle_epochs"),
}


def steps_of_milestones(milestones: list[float], start: float, steps_per_epoch: int) -> list[int]:
    """Return the number of steps from ``start`` to each milestone. Both are epochs from the start of the run."""
    return [round((milestone - start) * steps_per_epoch) for milestone in milestones]


def warm_restarts(init: float, lowest: float, position: float, cycle: float) -> float:
    """Return the rate of cosine annealing with warm restarts (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5).

    It falls from ``init`` to ``lowest`` along half a cosine and restarts every ``cycle`` steps. ``position``: steps.
    """
    cycles = math.floor(position / cycle + 1e-9)  # 0.9 / 0.3 is a little less than 3
    done = max(0.0, position / cycle - cycles)
    return max(lowest, lowest + (init - lowest) * (1 + math.cos(math.pi * done)) / 2)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether ``value`` is a finite number and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_scheduler_argument(name: str, value: object, init_lr: float) -> None:
    """Raise ValueError for an impossible ``value`` of the scheduler argument ``name``."""
    key = f"ScheduledLearningRate.lr_kwargs.{name}={value!r}"
    if name == "milestones":
        if not isinstance(value, list) or not value or not all(is_number(m) and m > 0 for m in value):
            raise ValueError(f"{key}: expected a list of epochs above 0, such as [1, 3].")
    elif not is_number(value):
        raise ValueError(f"{key}: expected a number.")
    elif name == "gamma" and not 0 < value <= 1:
        raise ValueError(f"{key}: expected a factor in (0, 1].")
    elif name == "lr_min" and not 0 <= value <= init_lr:
        raise ValueError(f"{key}: expected a rate from 0 to init_lr={init_lr}.")
    elif name in ("step_size", "cycle_epochs") and not value > 0:
        raise ValueError(f"{key}: expected a number of epochs above 0.")


@dataclass(kw_only=True)
class ScheduledLearningRate(RateModifier):
    """Set the learning rate of every parameter group as a scheduler of PyTorch does.

    After ``end`` the last rate stays until another modifier sets it. Times are epochs, ``'N steps'`` or ``'N%'`` of the
    run; those in ``lr_kwargs`` are epochs.

    Attributes:
        start: The time at which the scheduler begins to act.
        end: The time at which it stops.
        lr_class: ``StepLR``, ``MultiStepLR``, ``ExponentialLR`` or ``CosineAnnealingWarmRestarts``.
        lr_kwargs: All arguments of the scheduler. StepLR: ``step_size``, ``gamma``. MultiStepLR: ``milestones``, from
            the start of the run, and ``gamma``. ExponentialLR: ``gamma``, per epoch. CosineAnnealingWarmRestarts:
            ``lr_min``, ``cycle_epochs``. On the command line: ``+recipe.modifiers.NAME.lr_kwargs={gamma: 0.5}``.
        init_lr: The learning rate at ``start``, in (0, 1].
    """

    lr_class: str
    lr_kwargs: dict[str, Any] = field(default_factory=dict)
    init_lr: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr_class not in SCHEDULERS:
            raise ValueError(
                f"ScheduledLearningRate.lr_class={self.lr_class!r}: expected one of {', '.join(SCHEDULERS)}."
                f"{did_you_mean(self.lr_class, SCHEDULERS)}"
            )
        if not 0 < self.init_lr <= 1:
            raise ValueError(f"ScheduledLearningRate.init_lr={self.init_lr}: expected a rate in (0, 1].")
        expected = SCHEDULERS[self.lr_class]
        if set(self.lr_kwargs) != set(expected):
            raise ValueError(
                f"ScheduledLearningRate.lr_kwargs has {', '.join(self.lr_kwargs) or 'nothing'}: "
                f"{self.lr_class} needs {' and '.join(expected)}."
            )
        for name, value in self.lr_kwargs.items():
            check_scheduler_argument(name, value, self.init_lr)

    @property
    def exclusive_resource(self) -> str:
        return "learning rate"

    def window(self, clock: Clock) -> tuple[float, float]:
        start, end = super().window(clock)
        for milestone in self.lr_kwargs.get("milestones", ()):
            if not start < milestone < end:
                raise ValueError(
                    f"ScheduledLearningRate.lr_kwargs.milestones: {milestone} lies outside of the segment "
                    f"(epochs {start:g} to {end:g}). Milestones count from the start of the run."
                )
        return start, end

    def active_steps(self, clock: Clock) -> range:
        start, end = self.window(clock)
        return range(clock.first_step(start), clock.first_step(end))

    def rate_at(self, clock: Clock, step: int) -> float:
        start, steps_per_epoch = self.window(clock)[0], clock.steps_per_epoch
        first, options = clock.first_step(start), self.lr_kwargs
        if self.lr_class == "CosineAnnealingWarmRestarts":
            cycle = options["cycle_epochs"] * steps_per_epoch
            return warm_restarts(self.init_lr, options["lr_min"], step - start * steps_per_epoch, cycle)
        # The others multiply the rate by gamma a number of times; ExponentialLR once per epoch.
        if self.lr_class == "MultiStepLR":
            milestones = steps_of_milestones(options["milestones"], start, steps_per_epoch)
            decays = sum(step - first >= milestone for milestone in milestones)
        else:
            decays = (step - first) // max(1, round(options.get("step_size", 1) * steps_per_epoch))
        value: float = self.init_lr * options["gamma"] ** decays
        return value
