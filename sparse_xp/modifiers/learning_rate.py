"""Learning-rate segments: any number of them in one run, each owning its stretch of time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparse_xp.errors import did_you_mean
from sparse_xp.modifiers.base import Modifier

if TYPE_CHECKING:
    from sparse_xp.loop import Run


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


def rate(shape: str, init: float, final: float, x: float) -> float:
    """The learning rate at x of a segment: exactly ``init`` at x <= 0 and ``final`` at x >= 1."""
    if x <= 0:
        return init
    return final if x >= 1 else init + (final - init) * SHAPES[shape](x)


@dataclass(kw_only=True)
class LearningRate(Modifier):
    """Drive the learning rate of every parameter group from ``init_lr`` to ``final_lr``.

    A segment of no length (a warm-up of 0) does nothing, a constant one needs no ``final_lr``. After its end the last
    value stays until another segment starts. Every parameter group gets the same rate.
    """

    shape: str = "linear"
    init_lr: float = 0.0
    final_lr: float | None = None

    may_be_empty: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape not in SHAPES:
            raise ValueError(
                f"LearningRate.shape={self.shape!r}: want one of {', '.join(SHAPES)}.{did_you_mean(self.shape, SHAPES)}"
            )
        if self.final_lr is None:
            if self.shape != "constant":
                raise ValueError(f"LearningRate with shape={self.shape} needs final_lr.")
            self.final_lr = self.init_lr
        for name in ("init_lr", "final_lr"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"LearningRate.{name}={getattr(self, name)}: want a rate in [0, 1].")

    @property
    def occupies(self) -> str:
        return "learning rate"

    def before_step(self, run: Run) -> None:
        start, end = self.window(run.clock)
        now = run.clock.epoch(run.progress.step)
        if now >= start:  # segments act in the order of their starts, so the one that started last has the last word
            assert self.final_lr is not None
            x = (now - start) / (end - start) if end > start else 1.0
            value = rate(self.shape, self.init_lr, self.final_lr, x)
            for group in run.optimizer.param_groups:
                group["lr"] = value

    def logs(self, run: Run) -> dict[str, float]:
        return {"lr": run.optimizer.param_groups[0]["lr"]}
