"""Optimizer steps with their batches, made in host memory while a GPU computes the steps before.

A step has the same rows and the same masks whoever makes it, and whenever: they depend on the seed, the epoch and the
rows alone. So a run that continues is the same run, and one with another depth of preparation too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeVar

import torch

from sparse_xp.training.state import Run
from sparse_xp.training.teacher import StoredTeacher

S = TypeVar("S")
T = TypeVar("T")

#: a step as the loop plans it: its epoch, and the rows of each of its micro-batches
PlannedStep = tuple[int, list[list[int]]]

#: steps that are made ahead: two outlast a step that is slower to make than the others
DEPTH = 2


@dataclass(frozen=True)
class PreparedStep:
    """An optimizer step of this process.

    ``rows``: the row numbers of each micro-batch. ``batches``: their tensors in host memory, by column. ``logits``:
    those of a stored teacher, by the rows of a micro-batch and the name of the output.
    """

    rows: list[list[int]]
    batches: list[dict[str, torch.Tensor]]
    logits: dict[tuple[int, ...], dict[str, torch.Tensor]] = field(default_factory=dict)


def prepare_step(run: Run, planned: PlannedStep) -> PreparedStep:
    """Return a step with its batches, in pinned memory if the run is on a GPU."""
    epoch, rows = planned
    batches = [run.host_batch(each, epoch) for each in rows]
    logits = {}
    if isinstance(run.teacher, StoredTeacher):
        widths = [batch["input_ids"].shape[1] for batch in batches]
        logits = {tuple(each): run.teacher.read(each, width) for each, width in zip(rows, widths, strict=True)}
    if run.device.type == "cuda":
        batches, logits = [pinned(batch) for batch in batches], {key: pinned(each) for key, each in logits.items()}
    return PreparedStep(rows, batches, logits)


def pinned(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a batch in pinned memory, from which a GPU copies by itself."""
    return {name: value.pin_memory() for name, value in batch.items()}


@contextmanager
def prepared_steps(run: Run, planned: Iterable[PlannedStep]) -> Iterator[Iterator[PreparedStep]]:
    """Give the steps one after another, within the block. Those of a GPU are made in the background.

    On a CPU a thread would take its time from the computation.
    """
    prepare = partial(prepare_step, run)
    if run.device.type != "cuda":
        yield map(prepare, planned)
        return
    device = torch.cuda.current_device() if run.device.index is None else run.device.index
    with made_ahead(prepare, planned, DEPTH, lambda: torch.cuda.set_device(device)) as steps:
        yield steps


@contextmanager
def made_ahead(
    make: Callable[[S], T], items: Iterable[S], depth: int, begin: Callable[[], None] | None = None
) -> Iterator[Iterator[T]]:
    """Give ``make(item)`` for each of the items in order, made by a thread that is ``depth`` of them ahead.

    ``begin``: what the thread does first. An error of ``make`` is raised where its result would have come. The thread
    ends with the block.
    """
    pool = ThreadPoolExecutor(1, "batches", begin or (lambda: None))
    left = iter(items)

    def results() -> Iterator[T]:
        futures = deque(pool.submit(make, item) for item in islice(left, depth))
        while futures:
            result = futures.popleft().result()
            futures.extend(pool.submit(make, item) for item in islice(left, 1))
            yield result

    try:
        yield results()
    finally:
        pool.shutdown(cancel_futures=True)
