"""Rows become features: tokenized once, cached, memory-mapped."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.cache import ensure_cached
from sparse_xp.data.arrow_files import read_arrow
from sparse_xp.data.tokenizer_settings import preserve_settings
from sparse_xp.files.checksums import json_digest
from sparse_xp.settings import Data
from sparse_xp.tasks import Task
from sparse_xp.tasks.base import Rows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

#: rows that are tokenized together
ROWS_AT_ONCE = 1000


def make_features(
    task: Task,
    rows: Dataset,
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    train: bool,
    labelled: bool = True,
) -> Dataset:
    """Return the tokenized features of ``rows``, from the cache if they are in it.

    ``source``: the fingerprint of the rows. The cache key has everything that shapes the features. ``labelled``: False
    for rows of ``data.unlabeled``, whose features are the model's inputs alone.
    """
    fingerprint = json_digest(
        [
            type(task).__name__,
            task.version,
            task.feature_fields(),
            source,
            tokenizer_digest(tokenizer),
            train,
            # Rows that come together depend on how the rows are divided among workers.
            *([data.workers] if task.mixes_rows else []),
            *([] if labelled else ["inputs alone"]),
        ]
    )
    kind = ("train" if train else "eval") if labelled else "unlabeled"
    path = Path(data.cache) / "features" / f"{task.name}-{kind}-{fingerprint}"

    def features(batch: Rows, indices: list[int]) -> Rows:
        if labelled:
            return task.features(batch, tokenizer, indices[0], train)
        return task.input_features(batch, tokenizer, indices[0])

    def tokenize(draft: Path) -> None:
        with preserve_settings(tokenizer):
            rows.map(
                features,
                batched=True,
                batch_size=rows_at_once(len(rows), data.workers) if task.mixes_rows else ROWS_AT_ONCE,
                with_indices=True,
                remove_columns=rows.column_names,
                cache_file_name=str(draft / "features.arrow"),
                new_fingerprint=fingerprint,
                num_proc=data.workers if data.workers > 1 else None,
                desc=f"tokenise {task.name}",
            )

    ensure_cached(path, tokenize)
    return read_arrow(path, fingerprint)


def rows_at_once(rows: int, workers: int = 1) -> int:
    """Return a batch size near ``ROWS_AT_ONCE`` for which no worker's last batch is much smaller than the others."""
    share = math.ceil(rows / workers)
    return math.ceil(share / max(1, round(share / ROWS_AT_ONCE)))


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of what a tokenizer does to a text, apart from the padding and truncation of its last call."""
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    return json_digest({name: value for name, value in settings.items() if name not in ("padding", "truncation")})
