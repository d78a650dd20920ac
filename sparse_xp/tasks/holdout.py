"""Validation rows held out of the training rows, for data sets that have only these. Pure functions."""

from __future__ import annotations

from typing import Any

#: Subsets and splits are the same for every seed of a run, so that seeds measure training and nothing else.
SUBSET_SEED = 0


def held_out(keys: list[Any], stratify: bool, share: float) -> list[int]:
    """Return the numbers of the rows to evaluate on, about ``share`` of all, by the rows' ``keys``.

    ``stratify``: the same share of each key (classes). Otherwise rows of one key stay together (questions on one
    text), and whole keys are drawn until there are enough rows.
    """
    wanted = round(share * len(keys))
    chosen: list[int] = []
    members: dict[Any, list[int]] = {}
    for i in permutation(len(keys)):
        members.setdefault(keys[i], []).append(i)
    if stratify:
        for rows in members.values():
            chosen += rows[: round(share * len(rows))]
    else:
        for rows in members.values():
            if len(chosen) >= wanted:
                break
            chosen += rows
    return sorted(chosen)


def permutation(size: int) -> list[int]:
    """Return the numbers below ``size`` in an order that is always the same."""
    import numpy as np

    return [int(i) for i in np.random.default_rng(SUBSET_SEED).permutation(size)]
