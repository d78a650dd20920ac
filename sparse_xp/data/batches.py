"""Split features into batches, and make tensors of a batch.

The training loop calls ``epoch_batches`` once an epoch, ``epoch_steps`` for the batches of its process, and ``collate``
for each of them. Evaluation calls ``evaluation_batches`` and ``collate``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sparse_xp.settings import Train

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

#: Rows of like length are looked for in pools of at most so many batches, and of at least so many pools an epoch: in
#: one pool the same rows would meet in every epoch, which cost 4 points of F1 on generated entities (48 batches).
POOL_BATCHES = 50
POOLS = 8


def lengths_of(features: Dataset) -> list[int]:
    """Return the number of tokens of each feature."""
    if features._indices is not None:
        return [len(tokens) for tokens in features["input_ids"]]
    import pyarrow.compute

    lengths: list[int] = pyarrow.compute.list_value_length(features.data.column("input_ids")).to_pylist()
    return lengths


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of all random draws in an epoch of a run."""
    return (seed * 1_000_003 + epoch) % 2**63


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, grouped: bool = False) -> list[list[int]]:
    """Return the row numbers of one epoch in batches: shuffled, a pure function of the arguments.

    ``grouped``: rows of like length go together. The shuffled rows are cut into pools, each pool is sorted by length
    and cut into batches, and the batches are shuffled again. The rows of the last, shorter batch weigh more in their
    step than others. They are drawn at random in any case, so that over the epochs all rows weigh the same.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    if grouped:
        whole = len(order) - len(order) % batch_size
        pool = min(POOL_BATCHES, math.ceil(len(order) / batch_size / POOLS)) * batch_size
        pools = [order[i : min(i + pool, whole)] for i in range(0, whole, pool)]
        order = [row for rows in pools for row in sorted(rows, key=lambda row: -lengths[row])] + order[whole:]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if grouped:
        batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    return batches


def epoch_steps(batches: list[list[int]], accumulation: int, rank: int = 0, world: int = 1) -> list[list[list[int]]]:
    """For each optimizer step of the epoch the batches of this process.

    A resumed run skips by slicing. With several processes the last step is filled with the first batches of the
    epoch, so that every process has work in it.
    """
    if len(batches) % world:
        batches = batches + (batches * world)[: world - len(batches) % world]
    size = accumulation * world
    return [batches[i : i + size][rank::world] for i in range(0, len(batches), size)]


def steps_per_epoch(rows: int, settings: Train, world: int) -> int:
    """Optimizer steps in an epoch of ``rows`` features over ``world`` processes."""
    return math.ceil(math.ceil(rows / settings.batch_size) / (settings.gradient_accumulation_steps * world))


def collate(features: Dataset, rows: list[int], columns: list[str], padding: dict[str, int]) -> dict[str, Tensor]:
    """Return ``rows`` as tensors, [rows, tokens], padded on the right to the longest sequence of the batch.

    ``padding``: the padding value of each column, 0 by default. Integers become int64, floats float32.
    """
    import torch

    picked = features[rows]
    batch = {}
    for name in columns:
        values = picked[name]
        if isinstance(values[0], list):
            width, fill = max(map(len, values)), padding.get(name, 0)
            values = [value + [fill] * (width - len(value)) for value in values]
        batch[name] = torch.tensor(values)
    return batch


def evaluation_batches(features: Dataset, batch_size: int) -> Iterator[list[int]]:
    """All row numbers in batches of like length, the longest first, so that little of a batch is padding."""
    lengths = lengths_of(features)
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
