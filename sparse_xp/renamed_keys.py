"""Renamed configuration keys.

A command with an old key gets an error with the new one (``error_report``); a stored task of an earlier version is read
with its fields renamed (``current_task_fields``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

#: new names by old name, for each class of the configuration; Hugging Face's names where there are such
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

#: the same for all classes together: no old name has two meanings
NEW_NAMES: dict[str, str] = {old: new for names in RENAMED.values() for old, new in names.items()}


def new_name(key: str, known: Collection[str]) -> str | None:
    """Return the new name of ``key`` if it is one of the ``known`` keys, otherwise None."""
    new = NEW_NAMES.get(key)
    return new if new in known else None


#: fields that earlier versions stored with a task: hyperparameters, which are now in conf/hyperparameters.yaml
RETIRED_TASK_FIELDS = ("dense", "transfer", "quant", "pruneofa", "pruneofa_quant")


def current_task_fields(stored: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the stored fields of a task under their current names, without retired fields.

    ``known``: the fields of this kind of task.
    """
    fields = {name: value for name, value in stored.items() if name in known or name not in RETIRED_TASK_FIELDS}
    return {name if name in known else new_name(name, known) or name: value for name, value in fields.items()}
