"""Learning-rate rewinding for gradual pruning, as in Prune Once for All (Zafrir et al. 2021, arXiv:2111.05754)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.modifiers.learning_rate import RateModifier


def rewound(step: int, total: int, warmup: int, begin: int, end: int, every: int) -> float:
    """Return the factor of the peak rate in ``step`` of ``total``. All arguments are numbers of steps.

    The weights are pruned in the steps ``begin`` to ``end`` (the ramp). Without the ramp this is a linear warm-up over
    ``warmup`` steps and a linear decay to 0 (Devlin et al. 2019). During the ramp the decay restarts every ``every``
    steps from its value at ``begin``. After the ramp it continues. As in the authors' code, the factor may exceed 1:
    it is up to ``1 + warmup / (total - warmup)``.
    """
    if step < warmup:
        return step / max(1, warmup)
    decay_steps = total - (end - begin)  # the steps of the ramp do not count
    if begin <= step < end:
        left = decay_steps - begin - (step - begin) % every
    else:
        left = total - step - (end - begin if step < begin else 0)
    return max(0.0, left / max(1, decay_steps - warmup))


@dataclass(kw_only=True)
class RewoundLearningRate(RateModifier):
    """Warm the learning rate up and decay it linearly to 0, and rewind it at every mask update (``rewound``).

    Times are epochs, ``'N steps'`` or ``'N%'`` of the run.

    Attributes:
        start: The time from which it sets the learning rate of every parameter group.
        end: The time until which it sets it.
        peak_lr: The learning rate at the end of the warm-up, in (0, 1].
        warmup: The length of the linear warm-up.
        ramp_start: The start of the pruning modifier. From there on the rate is rewound.
        ramp_end: The end of the pruning modifier. After it the rate is not rewound any more.
        update_frequency: The time between two rewinds; that of the pruning modifier, so that they meet its updates.
    """

    peak_lr: float
    warmup: TimeSpec = 0.0
    ramp_start: TimeSpec = 0.0
    ramp_end: TimeSpec = "50%"
    update_frequency: TimeSpec = "1%"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.peak_lr <= 1:
            raise ValueError(f"RewoundLearningRate.peak_lr={self.peak_lr}: expected a rate in (0, 1].")
        for name in ("warmup", "ramp_start", "ramp_end", "update_frequency"):
            parse_time(getattr(self, name), f"RewoundLearningRate.{name}")

    @property
    def exclusive_resource(self) -> str:
        return "learning rate"

    def window(self, clock: Clock) -> tuple[float, float]:
        if clock.to_epochs_unrounded(self.ramp_start) > clock.to_epochs_unrounded(self.ramp_end):
            raise ValueError(
                f"RewoundLearningRate: ramp_start={self.ramp_start} is after ramp_end={self.ramp_end} in a run of "
                f"{clock.end:g} epochs."
            )
        return super().window(clock)

    def active_steps(self, clock: Clock) -> range:
        start, end = self.window(clock)
        return range(clock.first_step(start), clock.first_step(end))

    def rate_at(self, clock: Clock, step: int) -> float:
        first = self.active_steps(clock).start
        warmup, begin, end = (
            clock.first_step(clock.to_epochs(time)) - first for time in (self.warmup, self.ramp_start, self.ramp_end)
        )
        every = max(1, math.floor(clock.to_epochs(self.update_frequency) * clock.steps_per_epoch + 0.5))
        return self.peak_lr * rewound(
            step - first, len(self.active_steps(clock)), warmup, max(0, begin), max(0, end), every
        )
