"""Evaluation by all processes of a run: each predicts a share of the batches, and rank 0 scores all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import distributed

from sparse_xp.evaluation import Outputs, model_outputs, score

if TYPE_CHECKING:
    from sparse_xp.training.state import Run


def evaluate_together(run: Run) -> dict[str, float]:
    """Return the task's metrics on rank 0, those that it would get alone; an empty dictionary on the others.

    Every process has to call it.
    """
    rank, processes = run.accelerator.process_index, run.accelerator.num_processes
    shares = gather(model_outputs(run, rank, processes), rank, processes)
    return score(run, merged(shares)) if rank == 0 else {}


def gather(share: Outputs, rank: int, processes: int) -> list[Outputs]:
    """Return what each process has given, by rank, on rank 0; nothing on the others."""
    if processes == 1:
        return [share]
    shares: list[Outputs] | None = [{}] * processes if rank == 0 else None
    distributed.gather_object(share, shares)
    return shares or []


def merged(shares: list[Outputs]) -> Outputs:
    """Return the outputs of all features, given those of each share, which has None for the others."""
    whole: Outputs = {}
    for name in shares[0]:
        lists = [share[name] for share in shares]
        whole[name] = [next(value for value in values if value is not None) for values in zip(*lists, strict=True)]
    return whole
