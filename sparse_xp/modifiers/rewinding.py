"""Learning-rate rewinding for gradual pruning, as in Prune Once for All (Zafrir et al. 2021, arXiv:2111.05754)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.modifiers.learning_rate import DrivesRate


def rewound(step: int, total: int, warmup: int, begin: int, end: int, every: int) -> float:
    """The factor of the peak rate in ``step`` of ``total``, with pruning in the steps ``begin`` to ``end``.

    A linear warm-up and decay (Devlin et al. 2019) over ``total`` steps less those of the ramp: during the ramp every
    ``every`` steps the clock goes back to its beginning, after it the decay goes on. What it is at the peak of the ramp
    is up to ``1 + warmup / (total - warmup)``: the factor is that of the authors' code.
    """
    if step < warmup:
        return step / max(1, warmup)
    steps = total - (end - begin)
    if begin <= step < end:
        left = steps - begin - (step - begin) % every
    else:
        left = total - step - (end - begin if step < begin else 0)
    return max(0.0, left / max(1, steps - warmup))


@dataclass(kw_only=True)
class RewoundLearningRate(DrivesRate):
    """Drive the learning rate of every parameter group up to ``peak_lr`` and down to 0, rewound while pruning.

    ``warmup``: how long it rises. From ``ramp_start`` to ``ramp_end``, the window of the pruning modifier, it goes back
    every ``update_frequency`` to where it was at ``ramp_start``, with each new mask.
    """

    peak_lr: float
    warmup: TimeSpec = 0.0
    ramp_start: TimeSpec = 0.0
    ramp_end: TimeSpec = "50%"
    update_frequency: TimeSpec = "1%"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.peak_lr <= 1:
            raise ValueError(f"RewoundLearningRate.peak_lr={self.peak_lr}: want a rate in (0, 1].")
        for name in ("warmup", "ramp_start", "ramp_end", "update_frequency"):
            parse_time(getattr(self, name), f"RewoundLearningRate.{name}")

    @property
    def exclusive_resource(self) -> str:
        return "learning rate"

    def window(self, clock: Clock) -> tuple[float, float]:
        if clock.to_epochs_unrounded(self.ramp_start) > clock.to_epochs_unrounded(self.ramp_end):
            raise ValueError(
                f"RewoundLearningRate: ramp_start={self.ramp_start} is behind ramp_end={self.ramp_end} in a run of "
                f"{clock.end:g} epochs."
            )
        return super().window(clock)

    def writes(self, clock: Clock) -> range:
        start, end = self.window(clock)
        return range(clock.first_step(start), clock.first_step(end))

    def rate_at(self, clock: Clock, step: int) -> float:
        first = self.writes(clock).start
        warmup, begin, end = (
            clock.first_step(clock.to_epochs(time)) - first for time in (self.warmup, self.ramp_start, self.ramp_end)
        )
        every = max(1, math.floor(clock.to_epochs(self.update_frequency) * clock.steps_per_epoch + 0.5))
        return self.peak_lr * rewound(step - first, len(self.writes(clock)), warmup, max(0, begin), max(0, end), every)
