"""Rows without labels in the steps of a run (``data.unlabeled``): which of them each step has.

A step has as many micro-batches of them as of rows with labels, each of ``train.unlabeled_rows``. They are drawn from
their own endless sequence, in which every row comes once before any comes again. It depends on the seed alone, and the
place of a step in it on the number of the step: so a run that continues is the same run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from sparse_xp.data.batches import epoch_batches, epoch_seed

if TYPE_CHECKING:
    from sparse_xp.training.state import Run

#: makes the seeds of these rows others than those of the rows with labels
SEED = 0x756E6C


def unlabeled_steps(run: Run, epoch: int, counts: Sequence[int]) -> list[list[list[int]]]:
    """Return the micro-batches of rows without labels for each step of an epoch, those of this process.

    ``counts``: for each step the number of micro-batches of this process that have labels. A step in which no modifier
    compares the model with the teacher has none.
    """
    processes, rank = run.accelerator.num_processes, run.accelerator.process_index
    lengths, labelled = run.all_lengths[len(run.train_features) :], len(run.train_features)
    total = sum(counts) * processes
    batches = unlabeled_batches(
        lengths, run.train.unlabeled_rows, run.seed, run.train.group_by_length, epoch * total, total
    )
    steps = []
    for i, (count, end) in enumerate(zip(counts, accumulate(counts), strict=True)):
        of_step = batches[(end - count) * processes : end * processes][rank::processes]
        teaches = learns_from_teacher(run, epoch * run.clock.steps_per_epoch + i)
        steps.append([[labelled + row for row in batch] for batch in of_step] if teaches else [])
    return steps


def unlabeled_per_epoch(run: Run) -> int:
    """Return how many features without labels an epoch of the run has."""
    if run.unlabeled_features is None:
        return 0
    rows = len(run.train_features) // run.task.features_per_row
    return math.ceil(rows / run.train.labelled_rows) * run.train.unlabeled_rows


def features_per_epoch(run: Run) -> int:
    """Return how many features an epoch of the run has, with labels and without."""
    return len(run.train_features) + unlabeled_per_epoch(run)


def learns_from_teacher(run: Run, step: int) -> bool:
    """Return whether a modifier compares the model with the teacher in this step."""
    modifiers = run.modifier_list.modifiers.values()
    return any(modifier.learns_from_teacher and modifier.is_active(run.clock, step) for modifier in modifiers)


def unlabeled_batches(
    lengths: Sequence[int], size: int, seed: int, grouped: bool, first: int, count: int
) -> list[list[int]]:
    """Return ``count`` batches of ``size`` rows each, from batch number ``first`` of an endless sequence on.

    The sequence is one pass over the rows after another, each in an order of its own. A batch at the end of a pass goes
    on with the next one. ``lengths``: the number of tokens of each row. ``grouped``: as of ``epoch_batches``.
    """
    begin, end = first * size, (first + count) * size
    passes = range(begin // len(lengths), math.ceil(end / len(lengths)))
    rows = [row for number in passes for row in order_of_pass(lengths, size, seed, grouped, number)]
    skipped = begin - passes.start * len(lengths)
    return [rows[i : i + size] for i in range(skipped, skipped + end - begin, size)]


def order_of_pass(lengths: Sequence[int], size: int, seed: int, grouped: bool, number: int) -> list[int]:
    """Return all rows in the order of pass ``number``, shuffled.

    ``grouped``: batches that are in the pass as a whole have rows of like length.
    """
    seed = epoch_seed(epoch_seed(seed, number), SEED)
    [order] = epoch_batches(lengths, len(lengths), seed)
    begun = -number * len(lengths) % size  # these rows complete the last batch of the pass before
    whole = (len(lengths) - begun) // size * size
    if grouped and whole > 0:
        inner = order[begun : begun + whole]
        batches = epoch_batches([lengths[row] for row in inner], size, seed, grouped=True)
        order[begun : begun + whole] = [inner[i] for batch in batches for i in batch]
    return order
