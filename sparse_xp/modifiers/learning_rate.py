"""The learning rate: segments, each owning its stretch of time, and one-time settings.

Every parameter group gets the same rate. It lives in the optimizer's groups, which checkpoints keep: what nothing
writes stays, over an interruption too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.errors import did_you_mean
from sparse_xp.modifiers.base import Modifier, OneTime
from sparse_xp.modifiers.display import Display, LoggedNumber

if TYPE_CHECKING:
    from sparse_xp.modifiers.context import HookContext


def linear(x: float) -> float:
    """How far the way from the first value to the last has been gone at x in [0, 1]."""
    return x


def cosine(x: float) -> float:
    """Half a cosine period: slow, fast, slow."""
    return (1 - math.cos(math.pi * x)) / 2


def constant(x: float) -> float:
    """Stay at the first value until the very end."""
    return 0.0 if x < 1 else 1.0


SHAPES: dict[str, Callable[[float], float]] = {"linear": linear, "cosine": cosine, "constant": constant}
#: a shape that depends on whole steps, and so is no function of the way gone
CYCLIC = "cyclic_linear"


def rate(shape: str, init: float, final: float, x: float) -> float:
    """The learning rate at x of a segment: exactly ``init`` at x <= 0 and ``final`` at x >= 1."""
    if x <= 0:
        return init
    return final if x >= 1 else init + (final - init) * SHAPES[shape](x)


def cyclic_rate(init: float, final: float, position: int, cycle: int, total: int) -> float:
    """The rate at step ``position`` of ``total``: a line from ``init`` to ``final``, anew every ``cycle`` steps.

    Each cycle is exactly at ``final`` in its last step; the last one is shortened to the steps that remain.
    """
    done = position % cycle
    steps = min(cycle, total - position + done)
    return final if done >= steps - 1 else init + (final - init) * done / (steps - 1)


#: the arguments of each scheduler; times are in epochs, and counted from the start of the run for milestones
SCHEDULERS: dict[str, tuple[str, ...]] = {
    "StepLR": ("step_size", "gamma"),
    "MultiStepLR": ("milestones", "gamma"),
    "ExponentialLR": ("gamma",),
    "CosineAnnealingWarmRestarts": ("lr_min", "cycle_epochs"),
}


def steps_of_milestones(milestones: list[float], start: float, steps_per_epoch: int) -> list[int]:
    """How many steps after ``start`` each milestone is; all in epochs from the start of the run."""
    return [round((milestone - start) * steps_per_epoch) for milestone in milestones]


def warm_restarts(init: float, lowest: float, position: float, cycle: float) -> float:
    """Half a cosine from ``init`` down to ``lowest``, anew every ``cycle`` steps (Loshchilov & Hutter 2017, eq. 5)."""
    cycles = math.floor(position / cycle + 1e-9)  # 0.9 / 0.3 is a little less than 3
    done = max(0.0, position / cycle - cycles)
    return max(lowest, lowest + (init - lowest) * (1 + math.cos(math.pi * done)) / 2)


def set_rate(context: HookContext, value: float) -> None:
    """Give every parameter group the rate ``value``."""
    for group in context.optimizer.param_groups:
        group["lr"] = value


@dataclass(kw_only=True)
class DrivesRate(Modifier):
    """Writes the learning rate of every parameter group in the steps of one range; a subclass says which and what."""

    display: ClassVar[Display] = Display(bar_style="yellow")
    logged: ClassVar[tuple[LoggedNumber, ...]] = (LoggedNumber("lr", 40, "lr {:.2e}"),)

    def writes(self, clock: Clock) -> range:
        """The steps in which it writes; the last may lie behind the run."""
        raise NotImplementedError

    def rate_at(self, clock: Clock, step: int) -> float:
        """What it writes in ``step``, one of ``writes(clock)``."""
        raise NotImplementedError

    def before_step(self, context: HookContext) -> None:
        if context.step in self.writes(context.clock):
            set_rate(context, self.rate_at(context.clock, context.step))

    def logs(self, context: HookContext) -> dict[str, float]:
        return {"lr": context.optimizer.param_groups[0]["lr"]}


@dataclass(kw_only=True)
class LearningRate(DrivesRate):
    """Drive the learning rate of every parameter group from ``init_lr`` to ``final_lr``.

    It acts from the first step at or after ``start`` to the first at or after ``end``, where it writes ``final_lr``
    exactly; that value stays until something else writes. A constant segment needs no ``final_lr``.
    ``cycle``: how long one descent of ``cyclic_linear`` lasts, in whole steps.
    """

    shape: str = "linear"
    init_lr: float = 0.0
    final_lr: float | None = None
    cycle: TimeSpec = 1.0

    allow_empty_window: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [*SHAPES, CYCLIC]
        if self.shape not in known:
            raise ValueError(
                f"LearningRate.shape={self.shape!r}: want one of {', '.join(known)}.{did_you_mean(self.shape, known)}"
            )
        if self.final_lr is None:
            if self.shape != "constant":
                raise ValueError(f"LearningRate with shape={self.shape} needs final_lr.")
            self.final_lr = self.init_lr
        for name in ("init_lr", "final_lr"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"LearningRate.{name}={getattr(self, name)}: want a rate in [0, 1].")
        if not parse_time(self.cycle, "LearningRate.cycle")[0]:
            raise ValueError(f"LearningRate.cycle={self.cycle}: want a time above 0.")
        if self.shape != CYCLIC and self.cycle != 1.0:
            raise ValueError(
                f"LearningRate.cycle={self.cycle} is not used by shape={self.shape}; write shape={CYCLIC}."
            )

    @property
    def exclusive_resource(self) -> str:
        return "learning rate"

    def writes(self, clock: Clock) -> range:
        start, end = self.window(clock)
        return range(clock.first_step(start), clock.first_step(end) + 1)

    def rate_at(self, clock: Clock, step: int) -> float:
        assert self.final_lr is not None
        start, end = self.window(clock)
        first, last = clock.first_step(start), clock.first_step(end)
        if step == last:
            return self.final_lr
        if self.shape == CYCLIC:
            cycle = max(1, round(clock.to_epochs(self.cycle) * clock.steps_per_epoch))
            return cyclic_rate(self.init_lr, self.final_lr, step - first, cycle, last - first)
        return rate(self.shape, self.init_lr, self.final_lr, (clock.epoch(step) - start) / (end - start))


@dataclass(kw_only=True)
class SetLearningRate(OneTime, DrivesRate):
    """Set the learning rate of every parameter group once, in the first step at or after ``start``.

    A segment that begins in the same step writes after it, one that ends there before it.
    """

    learning_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"SetLearningRate.learning_rate={self.learning_rate}: want a rate in (0, 1].")

    def writes(self, clock: Clock) -> range:
        return range(self.trigger_step(clock), self.trigger_step(clock) + 1)

    def rate_at(self, clock: Clock, step: int) -> float:
        return self.learning_rate


@dataclass(kw_only=True)
class ScheduledLearningRate(DrivesRate):
    """Drive the learning rate of every parameter group from ``init_lr`` as a scheduler of PyTorch would.

    ``lr_class`` and its ``lr_kwargs``: StepLR (step_size, gamma), MultiStepLR (milestones, gamma), ExponentialLR
    (gamma, for each epoch), CosineAnnealingWarmRestarts (lr_min, cycle_epochs). Their times are epochs; milestones
    count from the start of the run. On the command line: ``+recipe.modifiers.NAME.lr_kwargs={gamma: 0.5}``. After
    ``end`` the last value stays until something else writes.
    """

    lr_class: str
    lr_kwargs: dict[str, Any] = field(default_factory=dict)
    init_lr: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr_class not in SCHEDULERS:
            raise ValueError(
                f"ScheduledLearningRate.lr_class={self.lr_class!r}: want one of {', '.join(SCHEDULERS)}."
                f"{did_you_mean(self.lr_class, SCHEDULERS)}"
            )
        if not 0 < self.init_lr <= 1:
            raise ValueError(f"ScheduledLearningRate.init_lr={self.init_lr}: want a rate in (0, 1].")
        wanted = SCHEDULERS[self.lr_class]
        if set(self.lr_kwargs) != set(wanted):
            raise ValueError(
                f"ScheduledLearningRate.lr_kwargs has {', '.join(self.lr_kwargs) or 'nothing'}: "
                f"{self.lr_class} wants {' and '.join(wanted)}."
            )
        for name, value in self.lr_kwargs.items():
            key = f"ScheduledLearningRate.lr_kwargs.{name}={value!r}"
            if name == "milestones":
                if not isinstance(value, list) or not value or not all(is_number(m) and m > 0 for m in value):
                    raise ValueError(f"{key}: want a list of epochs above 0, such as [1, 3].")
            elif not is_number(value):
                raise ValueError(f"{key}: want a number.")
            elif name == "gamma" and not 0 < value <= 1:
                raise ValueError(f"{key}: want a factor in (0, 1].")
            elif name == "lr_min" and not 0 <= value <= self.init_lr:
                raise ValueError(f"{key}: want a rate from 0 to init_lr={self.init_lr}.")
            elif name in ("step_size", "cycle_epochs") and not value > 0:
                raise ValueError(f"{key}: want a number of epochs above 0.")

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

    def writes(self, clock: Clock) -> range:
        start, end = self.window(clock)
        return range(clock.first_step(start), clock.first_step(end))

    def rate_at(self, clock: Clock, step: int) -> float:
        start, steps_per_epoch = self.window(clock)[0], clock.steps_per_epoch
        first, options = clock.first_step(start), self.lr_kwargs
        if self.lr_class == "CosineAnnealingWarmRestarts":
            cycle = options["cycle_epochs"] * steps_per_epoch
            return warm_restarts(self.init_lr, options["lr_min"], step - start * steps_per_epoch, cycle)
        if self.lr_class == "MultiStepLR":
            times = steps_of_milestones(options["milestones"], start, steps_per_epoch)
            drops = sum(step - first >= time for time in times)
        else:
            drops = (step - first) // max(1, round(options.get("step_size", 1) * steps_per_epoch))
        value: float = self.init_lr * options["gamma"] ** drops
        return value


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
