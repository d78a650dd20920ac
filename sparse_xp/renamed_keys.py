"""Configuration keys that have a new name: commands get an answer, files of earlier versions are still read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

#: by the class that has the key: its old name and its new one. Hugging Face's names where it has them.
RENAMED: dict[str, dict[str, str]] = {
    "Pretraining": {"masked": "mlm_probability", "whole_words": "whole_word_mask"},
    "QuestionAnswering": {
        "n_best": "n_best_size",
        "no_answer": "version_2_with_negative",
        "null_threshold": "null_score_diff_threshold",
    },
    "Model": {"attention": "attn_implementation"},
    "Pruning": {"but": "exclude", "regrowth": "regrow", "live": "refresh_masks"},
    "StructuredPruning": {"counted": "cost_metric"},
    "Quantization": {"embeddings": "quantize_embeddings"},
}

#: all of them, whatever the class; no old name means two things
NEW_NAMES: dict[str, str] = {old: new for names in RENAMED.values() for old, new in names.items()}


def new_name(key: str, known: Collection[str]) -> str | None:
    """Return the new name of ``key`` among the ``known`` keys beside it, None if it has none."""
    new = NEW_NAMES.get(key)
    return new if new in known else None


#: fields that earlier versions stored with a task: numbers of recipes, which are in conf/hyperparameters.yaml now
RETIRED_TASK_FIELDS = ("dense", "transfer", "quant", "pruneofa", "pruneofa_quant")


def current_task_fields(stored: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the stored fields of a task under the names they have now, without the retired ones.

    ``known``: the fields that the kind of task has.
    """
    fields = {name: value for name, value in stored.items() if name in known or name not in RETIRED_TASK_FIELDS}
    return {name if name in known else new_name(name, known) or name: value for name, value in fields.items()}
