"""The learning rate: segments with a shape, and one-time settings.

``RateModifier`` is the base of all modifiers that set the learning rate; ``scheduled_learning_rate`` (PyTorch's
schedulers) and ``rewinding`` have the others. Every parameter group gets the same rate. It is stored in the optimizer's
groups, which checkpoints save: between two modifiers the last rate stays, also in a resumed run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.errors import did_you_mean
from sparse_xp.modifiers.base import Modifier, OneTime
from sparse_xp.modifiers.display import Display, LoggedNumber

if TYPE_CHECKING:
    from sparse_xp.modifiers.context import HookContext


def linear(x: float) -> float:
    """Return the fraction of the change from the first rate to the last that is made at ``x`` in [0, 1]."""
    return x


def cosine(x: float) -> float:
    """Return the same for half a cosine period: slow, fast, slow."""
    return (1 - math.cos(math.pi * x)) / 2


def constant(x: float) -> float:
    """Return the same for a constant rate: 0 before the end."""
    return 0.0 if x < 1 else 1.0


#: shapes of a segment by name, each from 0 at its start to 1 at its end
SHAPES: dict[str, Callable[[float], float]] = {"linear": linear, "cosine": cosine, "constant": constant}
#: a shape that depends on the number of steps, not only on the fraction of the segment
CYCLIC = "cyclic_linear"


def rate(shape: str, init: float, final: float, x: float) -> float:
    """Return the learning rate at fraction ``x`` of a segment: exactly ``init`` at x <= 0 and ``final`` at x >= 1."""
    if x <= 0:
        return init
    return final if x >= 1 else init + (final - init) * SHAPES[shape](x)


def cyclic_rate(init: float, final: float, position: int, cycle: int, total: int) -> float:
    """Return the rate at step ``position`` of ``total``: a line from ``init`` to ``final``, restarted every ``cycle``.

    ``cycle``, ``total``: numbers of steps. Each cycle is exactly at ``final`` in its last step. The last cycle is
    shortened to the remaining steps.
    """
    done = position % cycle
    steps = min(cycle, total - position + done)
    return final if done >= steps - 1 else init + (final - init) * done / (steps - 1)


def set_rate(context: HookContext, value: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in context.optimizer.param_groups:
        group["lr"] = value


@dataclass(kw_only=True)
class RateModifier(Modifier):
    """Base of modifiers that set the learning rate of every parameter group, in the steps of one range."""

    display: ClassVar[Display] = Display(bar_style="yellow")
    logged: ClassVar[tuple[LoggedNumber, ...]] = (LoggedNumber("lr", 40, "lr {:.2e}"),)

    def active_steps(self, clock: Clock) -> range:
        """Return the steps in which it sets the rate. The last may be one after the run."""
        raise NotImplementedError

    def rate_at(self, clock: Clock, step: int) -> float:
        """Return the rate for ``step``, which is one of ``active_steps``."""
        raise NotImplementedError

    def before_step(self, context: HookContext) -> None:
        if context.step in self.active_steps(context.clock):
            set_rate(context, self.rate_at(context.clock, context.step))

    def logs(self, context: HookContext) -> dict[str, float]:
        return {"lr": context.optimizer.param_groups[0]["lr"]}


@dataclass(kw_only=True)
class LearningRate(RateModifier):
    """Move the learning rate of every parameter group from ``init_lr`` to ``final_lr``.

    It acts from the first step at or after ``start`` to the first step at or after ``end``, which gets exactly
    ``final_lr``. That rate stays until another modifier sets it. Times: epochs, ``'N steps'`` or ``'N%'`` of the run.

    Attributes:
        start: The time at which the segment begins.
        end: The time at which the segment ends. An empty segment is allowed (a warm-up of 0).
        shape: ``linear``, ``cosine``, ``constant``, or ``cyclic_linear`` (a line that restarts every ``cycle``).
        init_lr: The learning rate at ``start``, in [0, 1].
        final_lr: The learning rate at ``end``, in [0, 1]. By default that of ``init_lr``, for ``constant`` only.
        cycle: The length of one cycle of ``cyclic_linear``, rounded to whole steps.
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
                f"LearningRate.shape={self.shape!r}: expected one of {', '.join(known)}."
                f"{did_you_mean(self.shape, known)}"
            )
        if self.final_lr is None:
            if self.shape != "constant":
                raise ValueError(f"LearningRate with shape={self.shape} needs final_lr.")
            self.final_lr = self.init_lr
        for name in ("init_lr", "final_lr"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"LearningRate.{name}={getattr(self, name)}: expected a rate in [0, 1].")
        if not parse_time(self.cycle, "LearningRate.cycle")[0]:
            raise ValueError(f"LearningRate.cycle={self.cycle}: expected a time above 0.")
        if self.shape != CYCLIC and self.cycle != 1.0:
            raise ValueError(
                f"LearningRate.cycle={self.cycle} is not used by shape={self.shape}; write shape={CYCLIC}."
            )

    @property
    def exclusive_resource(self) -> str:
        return "learning rate"

    def active_steps(self, clock: Clock) -> range:
        start, end = self.window(clock)
        return range(clock.first_step(start), clock.first_step(end) + 1)

    def rate_at(self, clock: Clock, step: int) -> float:
        assert self.final_lr is not None  # ``__post_init__`` has set it
        start, end = self.window(clock)
        first, last = clock.first_step(start), clock.first_step(end)
        if step == last:
            return self.final_lr
        if self.shape == CYCLIC:
            cycle = max(1, round(clock.to_epochs(self.cycle) * clock.steps_per_epoch))
            return cyclic_rate(self.init_lr, self.final_lr, step - first, cycle, last - first)
        return rate(self.shape, self.init_lr, self.final_lr, (clock.epoch(step) - start) / (end - start))


@dataclass(kw_only=True)
class SetLearningRate(OneTime, RateModifier):
    """Set the learning rate of every parameter group once.

    Where a segment starts in the same step, the segment sets the rate after it; where one ends there, before it.

    Attributes:
        start: It acts in the first step at or after this time, in epochs, ``'N steps'`` or ``'N%'`` of the run.
        learning_rate: The learning rate from then on, in (0, 1].
    """

    learning_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"SetLearningRate.learning_rate={self.learning_rate}: expected a rate in (0, 1].")

    def active_steps(self, clock: Clock) -> range:
        return range(self.trigger_step(clock), self.trigger_step(clock) + 1)

    def rate_at(self, clock: Clock, step: int) -> float:
        return self.learning_rate
