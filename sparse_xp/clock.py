"""Time in a run: one notation for users, one clock for modifiers.

A time is written as epochs (``2``, ``0.5``), as optimizer steps (``"500 steps"``) or as a fraction of the
run (``"60%"``). The clock turns each into epochs as a float, the unit every schedule is defined in.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

When = Any  # float | int | str: OmegaConf has no union that keeps 2, 2.5 and "60%" apart, so parse_when checks.

_WHEN = re.compile(r"^\s*(?P<number>\d+(\.\d*)?([eE][-+]?\d+)?)\s*(?P<unit>%|steps?|epochs?)?\s*$")


def parse_when(value: When, name: str = "time") -> tuple[float, str]:
    """Return (number, unit) with unit one of ``epochs``, ``steps``, ``%``.

    Raises ValueError naming ``name`` for anything else: negative or unreadable times, more than 100 %.
    """
    match = None if isinstance(value, bool) else _WHEN.match(str(value))
    if not match:
        raise ValueError(f"{name}={value!r} is not a time. Write epochs (2 or 0.5), '500 steps', or '60%' of the run.")
    number, unit = float(match["number"]), match["unit"] or "epochs"
    if number > 1e12:
        raise ValueError(f"{name}={value!r} is no time that a run could reach.")
    if unit == "%" and number > 100:
        raise ValueError(f"{name}={value!r} lies behind the end of the run: at most 100%.")
    return number, {"%": "%", "s": "steps", "e": "epochs"}[unit[0]]


@dataclass(frozen=True)
class Clock:
    """The length of a run: ``steps_per_epoch`` optimizer steps an epoch, ``total_steps`` in all."""

    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, epochs: float, steps_per_epoch: int) -> Clock:
        """A run of ``epochs`` epochs (a float), rounded up to whole optimizer steps, at least one."""
        return cls(steps_per_epoch, max(1, math.ceil(epochs * steps_per_epoch - 1e-9)))

    def epoch(self, step: int) -> float:
        """The time at which optimizer step ``step`` (from 0) begins, in epochs."""
        return step / self.steps_per_epoch

    def first_step(self, at: float) -> int:
        """The number of the first optimizer step that begins at or after the time ``at``, in epochs."""
        return math.ceil(at * self.steps_per_epoch - 1e-9)  # 0.1 * 30 is a little more than 3

    @property
    def end(self) -> float:
        """The end of the run, in epochs."""
        return self.epoch(self.total_steps)

    def exactly(self, when: When, name: str = "time") -> float:
        """A written time in epochs, before fractions of the run are rounded to whole steps."""
        number, unit = parse_when(when, name)
        return (
            number
            if unit == "epochs"
            else self.epoch(1) * (number if unit == "steps" else number / 100 * self.total_steps)
        )

    def at(self, when: When, name: str = "time") -> float:
        """A written time in epochs; steps and fractions land on whole steps exactly."""
        number, unit = parse_when(when, name)
        if unit == "epochs":
            return number
        return self.epoch(round(number if unit == "steps" else number / 100 * self.total_steps))
