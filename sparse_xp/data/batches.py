"""Split features into batches, and make tensors of a batch.

The training loop calls ``epoch_batches`` once an epoch, and ``epoch_steps`` for the batches of its process, which
``split_by_tokens`` cuts otherwise for ``train.tokens``. ``collate`` makes the tensors of each. Evaluation calls
``evaluation_batches`` and ``collate``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sparse_xp.data.flat_columns import FlatColumn, flat_columns
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
    lengths: list[int] = flat_columns(features, ["input_ids"])["input_ids"].lengths().tolist()
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


def split_by_tokens(rows: Sequence[int], lengths: Sequence[int], tokens: int, together: int = 1) -> list[list[int]]:
    """Return ``rows`` in as few micro-batches as have at most ``tokens`` each, padding included; the longest first.

    ``lengths``: the number of tokens of each row of the data set. ``together``: so many rows that follow each other
    stay so. Those that are too long for ``tokens`` are alone.
    """
    batches: list[list[int]] = []
    width = 0
    groups = [rows[i : i + together] for i in range(0, len(rows), together)]
    longest = {group[0]: max(lengths[row] for row in group) for group in groups}
    for group in sorted(groups, key=lambda group: -longest[group[0]]):
        if not batches or (len(batches[-1]) + together) * width > tokens:
            batches.append([])
            width = longest[group[0]]
        batches[-1].extend(group)
    return batches


def steps_per_epoch(rows: int, settings: Train, world: int) -> int:
    """Optimizer steps in an epoch of ``rows`` features over ``world`` processes."""
    return math.ceil(math.ceil(rows / settings.batch_size) / (settings.gradient_accumulation_steps * world))


def collate(
    features: Dataset | Mapping[str, FlatColumn],
    rows: Sequence[int],
    columns: Sequence[str],
    padding: Mapping[str, int],
) -> dict[str, Tensor]:
    """Return ``rows`` as tensors, [rows, tokens], padded on the right to the longest sequence of the batch.

    ``features``: who collates many batches of a data set calls ``flat_columns`` once. ``padding``: the padding value of
    each column, 0 by default. Integers become int64, floats float32.
    """
    import torch

    flat = features if isinstance(features, Mapping) else flat_columns(features, columns)
    return {name: torch.from_numpy(flat[name].padded(rows, padding.get(name, 0))) for name in columns}


def bucket_width(tokens: int, limit: int) -> int:
    """Return the width to which a batch of so many tokens is padded where few different widths are wanted.

    A multiple of 8 up to 64, of 16 up to 128, of 32 up to 256 and of 64 above; at most ``limit``. So there are 20
    widths up to 512.
    """
    step = next((step for step in (8, 16, 32) if tokens <= 8 * step), 64)
    return max(tokens, min(math.ceil(tokens / step) * step, limit))


def pad_to_bucket(batch: dict[str, Tensor], padding: Mapping[str, int], limit: int) -> dict[str, Tensor]:
    """Return the batch padded to its ``bucket_width``: integers with an entry for each token, in each row.

    ``padding``: as in ``collate``. ``limit``: the most tokens of a row, ``task.max_length``.
    """
    from torch.nn.functional import pad

    width = batch["input_ids"].shape[1]
    more = bucket_width(width, limit) - width
    return {
        name: pad(value, (0, more), value=padding.get(name, 0))
        if value.shape[1:] == (width,) and not value.is_floating_point()
        else value
        for name, value in batch.items()
    }


def evaluation_batches(features: Dataset, batch_size: int) -> Iterator[list[int]]:
    """All row numbers in batches of like length, the longest first, so that little of a batch is padding."""
    lengths = lengths_of(features)
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
