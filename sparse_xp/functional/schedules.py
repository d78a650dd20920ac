"""Schedules of pruning as pure functions of numbers. No torch: ``sparse_xp.recipe`` draws a recipe with them.

Sparsity is a fraction in [0, 1], never per cent. Times are in epochs.
"""

from __future__ import annotations

from collections.abc import Callable

#: curves from 0 to 1 by name (``inter_func``), the default first
RAMPS: dict[str, Callable[[float], float]] = {
    "cubic": lambda x: 1 - (1 - x) ** 3,
    "linear": lambda x: x,
    "inverse_cubic": lambda x: 1 - (1 - x) ** (1 / 3),
}


def ramp(name: str, x: float) -> float:
    """Return the value in [0, 1] of the named ramp at progress ``x``, which is clamped to [0, 1]."""
    if name not in RAMPS:
        raise ValueError(f"unknown inter_func {name!r}; expected one of {', '.join(RAMPS)}")
    return RAMPS[name](min(max(x, 0.0), 1.0))


def scheduled_sparsity(inter_func: str, init: float, final: float, x: float) -> float:
    """Return the sparsity at progress ``x``: exactly ``init`` for x <= 0 and exactly ``final`` for x >= 1.

    ``cubic`` is eq. 1 of Zhu & Gupta, "To prune, or not to prune" (2017), arXiv:1710.01878.
    """
    fraction = ramp(inter_func, x)
    if fraction == 1:  # init + (final - init) may miss final by a rounding error
        return final
    return init + (final - init) * fraction


def update_due(now: float, last: float, start: float, end: float, every: float) -> bool:
    """Return whether the step at ``now`` updates masks, given the ``last`` update (below 0: none yet).

    The first update is at ``start``, the last at ``end``; between them there is one per ``every``, up to rounding.
    """
    if now < start or last >= end:
        return False
    return last < 0 or now >= end or now >= last + every - 1e-9


def progress(now: float, start: float, end: float) -> float:
    """Return the part of the window from ``start`` to ``end`` that is over ``now``; 1 for an empty window."""
    return (now - start) / (end - start) if end > start else 1.0


def ramp_progress(now: float, window: tuple[float, float], ramp_end: float) -> float:
    """Return the part of a ramp that is over ``now``; 1 from the last update on.

    ``window``: the times of the first and of the last update. ``ramp_end``: the end of the ramp. In a run that ends
    with its ramp, the last update comes before that, and closes the ramp.
    """
    start, last_update = window
    return 1.0 if now >= last_update else progress(now, start, ramp_end)


def share_due(
    inter_func: str, now: float, last: float, window: tuple[float, float], ramp_end: float, every: float
) -> float | None:
    """Return the share in [0, 1] of the whole removal that the step at ``now`` has to reach; None if no update is due.

    Arguments as in ``update_due``, ``ramp_progress`` and ``scheduled_sparsity``.
    """
    start, end = window
    if not update_due(now, last, start, end, every):
        return None
    return scheduled_sparsity(inter_func, 0.0, 1.0, ramp_progress(now, window, ramp_end))
