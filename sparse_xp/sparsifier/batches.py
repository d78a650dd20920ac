"""Batches of training data that modifiers ask for beside the loop: gradients of second-order pruning, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, Subset

from sparse_xp.errors import UserError
from sparse_xp.sparsifier.outputs import rows_of


def can_rebatch(batches: Iterable[Any]) -> bool:
    """Return whether these are the batches of a DataLoader whose rows can be batched in another way."""
    return (
        isinstance(batches, DataLoader)
        and not isinstance(batches.dataset, IterableDataset)
        and isinstance(batches.dataset, Sized)
    )


def rebatched(loader: DataLoader[Any], batch_size: int | None, rows: list[int]) -> DataLoader[Any]:
    """Return a loader of these ``rows`` of the data of another, in this order, in the process of the loop."""
    size = batch_size or loader.batch_size or 1
    return DataLoader(Subset(loader.dataset, rows), batch_size=size, collate_fn=loader.collate_fn)


def repeated(batches: Iterable[Any], count: int) -> Iterator[Any]:
    """Yield ``count`` batches, from the beginning again as often as that takes. Raises UserError if there are none."""
    left = count
    while left:
        before = left
        for batch in batches:
            yield batch
            left -= 1
            if not left:
                return
        if left == before:
            raise UserError("batches= has no batch: give a DataLoader, or a list of batches of training data.")


def covering(batches: Iterable[Any], rows: int) -> Iterator[Any]:
    """Yield batches until they have ``rows`` rows. Those of a DataLoader are spread evenly over all of its data."""
    if can_rebatch(batches):
        assert isinstance(batches, DataLoader)
        assert isinstance(batches.dataset, Sized)
        total = len(batches.dataset)
        count = min(rows, total)
        batches = rebatched(batches, None, [i * total // count for i in range(count)])
    seen = 0
    for batch in batches:
        if seen >= rows:
            return
        yield batch
        seen += max(1, rows_of(batch))
