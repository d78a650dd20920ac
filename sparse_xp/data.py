"""Rows, features, batches: from a data source to tensors."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.config import Data, Train
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.hub import unavailable
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

#: Subsets are the same for every seed of a run, so that seeds measure training and nothing else.
SUBSET_SEED = 0

#: Rows of like length are looked for in pools of at most so many batches, and of at least so many pools an epoch: in
#: one pool the same rows would meet in every epoch, which cost 4 points of F1 on generated entities (48 batches).
POOL_BATCHES = 50
POOLS = 8


def load_rows(task: Task, data: Data, train: bool) -> tuple[Dataset, str]:
    """The rows of the train or the evaluation split, and a fingerprint of where they came from.

    Of several splits (``a+b``) the rows follow each other, and a column ``split`` says which is whose.
    Raises UserError for a missing file, an unreachable hub, missing columns, or no rows.
    """
    split = task.train_split if train else task.eval_split
    parts = [_load_split(task, data, name, train) for name in split.split("+")]
    if len(parts) == 1:
        [(rows, origin)] = parts
        return rows, digest([origin, len(rows)])
    from datasets import concatenate_datasets

    named = [
        rows.add_column("split", [name] * len(rows)) for name, (rows, _) in zip(split.split("+"), parts, strict=True)
    ]
    return concatenate_datasets(named), digest([(origin, len(rows)) for rows, origin in parts])


def _load_split(task: Task, data: Data, split: str, train: bool) -> tuple[Dataset, str]:
    load = {"local": _local, "embedded": _embedded, "hub": _hub}[data.source]
    rows, origin = load(task, data, split, train)
    missing = [column for column in task.columns() if column not in rows.column_names]
    if missing:
        raise UserError(
            f"task {task.name}: {origin} has no column '{missing[0]}'.{did_you_mean(missing[0], rows.column_names)} "
            f"It has {', '.join(rows.column_names)}; the task's own fields (task.*) say which column is which."
        )
    if not len(rows):
        raise UserError(f"task {task.name}: {origin} has no rows.")
    limit = task.max_train_samples if train else task.max_eval_samples
    if limit is not None and limit < len(rows):
        import numpy as np

        rows = rows.select(sorted(np.random.default_rng(SUBSET_SEED).permutation(len(rows))[:limit].tolist()))
    return rows, origin


def _local(task: Task, data: Data, split: str, train: bool) -> tuple[Dataset, str]:
    import pyarrow.parquet
    from datasets import Dataset

    path = Path(str(data.root)) / task.folder / f"{split}.parquet"
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else path.parent.parent
        there = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such directory"
        raise UserError(
            f"task {task.name}: no file {path}. data.root=DIR holds <dataset>/<split>.parquet with the hub's columns; "
            f"{folder} has: {there}."
        )
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"task {task.name}: {path} is not a parquet file ({str(error).splitlines()[0]}).") from error
    return Dataset(table), f"{task.folder}/{split}.parquet sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _embedded(task: Task, data: Data, split: str, train: bool) -> tuple[Dataset, str]:
    from datasets import Dataset

    size = data.embedded_train_rows if train else data.embedded_eval_rows
    # The second of two splits has the rows after those of the first.
    begin = (task.train_split if train else task.eval_split).split("+").index(split) * size
    made = task.embedded("train" if train else "validation", begin + size)
    made = {name: values[begin:] for name, values in made.items()}
    return Dataset.from_dict(made), f"embedded/{split} {digest(made)}"


def _hub(task: Task, data: Data, split: str, train: bool) -> tuple[Dataset, str]:
    from datasets import load_dataset

    name = f"{task.dataset}{f'/{task.subset}' if task.subset else ''}"
    try:
        rows = load_dataset(task.dataset, task.subset, split=split, revision=task.revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise unavailable(f"data set {name} (split {split})", error) from error
    return rows, f"{name}@{task.revision}/{split}"


def make_features(
    task: Task, rows: Dataset, origin: str, tokenizer: PreTrainedTokenizerBase, cache: Path, train: bool
) -> Dataset:
    """Tokenised features of ``rows``, kept under ``cache`` by a fingerprint of everything that shaped them."""
    later = ("metric", "n_best", "max_answer_length", "dense", "transfer")  # what comes after the features
    fields = {name: value for name, value in vars(task).items() if name not in later}
    fingerprint = digest(
        [
            type(task).__name__,
            task.version,
            fields,
            origin,
            tokenizer_digest(tokenizer),
            train,
        ]
    )
    cache.mkdir(parents=True, exist_ok=True)
    return rows.map(
        lambda batch, indices: task.features(batch, tokenizer, indices[0], train),
        batched=True,
        with_indices=True,
        remove_columns=rows.column_names,
        cache_file_name=str(cache / f"{task.name}-{'train' if train else 'eval'}-{fingerprint}.arrow"),
        new_fingerprint=fingerprint,
        desc=f"tokenise {task.name}",
    )


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of what a tokenizer does to a text, whatever padding and truncation it was last used with."""
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    return digest({name: value for name, value in settings.items() if name not in ("padding", "truncation")})


def digest(value: Any) -> str:
    """Sixteen hex digits that are the same for equal values on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, grouped: bool = False) -> list[list[int]]:
    """The row numbers of one epoch in batches: shuffled, a pure function of the arguments.

    ``grouped``: rows of like length go together. The shuffled rows are cut into pools, each pool is sorted by length
    and cut into batches, and the batches are shuffled again.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    if grouped:
        pool = min(POOL_BATCHES, math.ceil(len(order) / batch_size / POOLS)) * batch_size
        pools = [order[i : i + pool] for i in range(0, len(order), pool)]
        order = [row for rows in pools for row in sorted(rows, key=lambda row: -lengths[row])]
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
    """The given rows as tensors: sequences padded on the right to the longest among them, [rows, tokens].

    ``padding``: what fills up each column, 0 where it says nothing. Whole numbers are int64, others float32.
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
    lengths = [len(tokens) for tokens in features["input_ids"]]
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
