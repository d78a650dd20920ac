"""When pruning acts and how far it has come, as pure functions of numbers. No torch: ``show`` draws a recipe with them.

Sparsity is a fraction in [0, 1], never per cent. Times are in epochs.
"""

from __future__ import annotations

from collections.abc import Callable

RAMPS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "cubic": lambda x: 1 - (1 - x) ** 3,
    "inverse_cubic": lambda x: 1 - (1 - x) ** (1 / 3),
}


def ramp(name: str, x: float) -> float:
    """Value in [0, 1] of the named ramp at progress ``x``, which is clamped to [0, 1]."""
    if name not in RAMPS:
        raise ValueError(f"unknown inter_func {name!r}; want one of {', '.join(RAMPS)}")
    return RAMPS[name](min(max(x, 0.0), 1.0))


def scheduled_sparsity(inter_func: str, init: float, final: float, x: float) -> float:
    """Sparsity at progress ``x``: exactly ``init`` for x <= 0 and exactly ``final`` for x >= 1.

    ``cubic`` is eq. 1 of Zhu & Gupta, "To prune, or not to prune" (2017), arXiv:1710.01878.
    """
    fraction = ramp(inter_func, x)
    if fraction == 1:  # init + (final - init) may miss final by a rounding error
        return final
    return init + (final - init) * fraction


def update_due(now: float, last: float, start: float, end: float, every: float) -> bool:
    """Whether the step at ``now`` makes new masks, if the last that did was at ``last`` (below 0: none yet).

    The first is at ``start``, the last at ``end``, and between them ``every`` so often, but for rounding.
    """
    if now < start or last >= end:
        return False
    return last < 0 or now >= end or now >= last + every - 1e-9


def progress(now: float, start: float, end: float) -> float:
    """The part of the window from ``start`` to ``end`` that is over ``now``; all of a window of no length."""
    return (now - start) / (end - start) if end > start else 1.0
