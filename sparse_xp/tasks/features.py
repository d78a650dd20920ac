"""Rows become features: tokenised once, cached, memory-mapped."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.cache import cached
from sparse_xp.data.batches import read_arrow, settings_kept
from sparse_xp.files import digest
from sparse_xp.settings import Data
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

#: rows that become features together
ROWS_AT_ONCE = 1000


def make_features(
    task: Task, rows: Dataset, origin: str, tokenizer: PreTrainedTokenizerBase, data: Data, train: bool
) -> Dataset:
    """Tokenised features of ``rows``, kept in the cache by a fingerprint of everything that shaped them."""
    # What comes after the features, and cannot change them.
    later = ("metric", "metrics", "n_best", "max_answer_length", "null_threshold", "dense", "transfer", "quant")
    fields = {name: value for name, value in vars(task).items() if name not in (*later, "pruneofa", "pruneofa_quant")}
    fingerprint = digest(
        [
            type(task).__name__,
            task.version,
            fields,
            origin,
            tokenizer_digest(tokenizer),
            train,
            *([data.workers] if task.mixes_rows else []),
        ]
    )
    path = Path(data.cache) / "features" / f"{task.name}-{'train' if train else 'eval'}-{fingerprint}"

    def make(draft: Path) -> None:
        with settings_kept(tokenizer):
            rows.map(
                lambda batch, indices: task.features(batch, tokenizer, indices[0], train),
                batched=True,
                batch_size=rows_at_once(len(rows), data.workers) if task.mixes_rows else ROWS_AT_ONCE,
                with_indices=True,
                remove_columns=rows.column_names,
                cache_file_name=str(draft / "features.arrow"),
                new_fingerprint=fingerprint,
                num_proc=data.workers if data.workers > 1 else None,
                desc=f"tokenise {task.name}",
            )

    cached(path, make)
    return read_arrow(path, fingerprint)


def rows_at_once(rows: int, workers: int = 1) -> int:
    """About ``ROWS_AT_ONCE``, but such that the last batch of each worker is not much smaller than the others."""
    share = math.ceil(rows / workers)
    return math.ceil(share / max(1, round(share / ROWS_AT_ONCE)))


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of what a tokenizer does to a text, whatever padding and truncation it was last used with."""
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    return digest({name: value for name, value in settings.items() if name not in ("padding", "truncation")})
