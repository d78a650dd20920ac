"""Time in a run: one notation for users, one clock for modifiers.

A time is written in epochs (``2``, ``0.5``), in steps of the optimizer (``"500 steps"``) or as a fraction of the run
(``"60%"``). The clock converts it to epochs, a float: the unit in which every schedule is defined.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

TimeSpec = Any  # float | int | str: OmegaConf has no union that keeps 2, 2.5 and "60%" apart, so parse_when checks.

_TIME = re.compile(r"^\s*(?P<number>\d+(\.\d*)?([eE][-+]?\d+)?)\s*(?P<unit>%|steps?|epochs?)?\s*$")


def parse_time(value: TimeSpec, name: str = "time") -> tuple[float, str]:
    """Return (number, unit) with unit one of ``epochs``, ``steps``, ``%``.

    Raises ValueError naming ``name`` for anything else: negative or unreadable times, more than 100 %.
    """
    match = None if isinstance(value, bool) else _TIME.match(str(value))
    if not match:
        raise ValueError(f"{name}={value!r} is not a time. Write epochs (2 or 0.5), '500 steps', or '60%' of the run.")
    number, unit = float(match["number"]), match["unit"] or "epochs"
    if number > 1e12:
        raise ValueError(f"{name}={value!r} is later than the end of any run.")
    if unit == "%" and number > 100:
        raise ValueError(f"{name}={value!r} is after the end of the run: at most 100%.")
    return number, {"%": "%", "s": "steps", "e": "epochs"}[unit[0]]


@dataclass(frozen=True)
class Clock:
    """The length of a run: ``steps_per_epoch`` optimizer steps an epoch, ``total_steps`` in all."""

    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, epochs: float, steps_per_epoch: int) -> Clock:
        """Return the clock of a run of ``epochs``, rounded up to whole optimizer steps, at least one."""
        return cls(steps_per_epoch, max(1, math.ceil(epochs * steps_per_epoch - 1e-9)))

    def epoch(self, step: int) -> float:
        """Return the time, in epochs, at which optimizer step ``step`` (from 0) begins."""
        return step / self.steps_per_epoch

    def first_step(self, at: float) -> int:
        """Return the number of the first optimizer step that begins at or after the time ``at``, in epochs."""
        return math.ceil(at * self.steps_per_epoch - 1e-9)  # 0.1 * 30 is a little more than 3

    @property
    def end(self) -> float:
        """The end of the run, in epochs."""
        return self.epoch(self.total_steps)

    def to_epochs_unrounded(self, time: TimeSpec, name: str = "time") -> float:
        """Return a time in epochs, without rounding fractions of the run to whole steps.

        For comparing two times as they are written. ``name``: the key of the time, for messages.
        """
        number, unit = parse_time(time, name)
        if unit == "epochs":
            return number
        return self.epoch(1) * (number if unit == "steps" else number / 100 * self.total_steps)

    def to_epochs(self, time: TimeSpec, name: str = "time") -> float:
        """Return a time in epochs; steps and fractions of the run are rounded to whole steps.

        ``name``: the key of the time, for messages.
        """
        number, unit = parse_time(time, name)
        if unit == "epochs":
            return number
        return self.epoch(round(number if unit == "steps" else number / 100 * self.total_steps))
