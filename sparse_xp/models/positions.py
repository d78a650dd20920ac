"""Hold ``task.max_length`` and ``export.sequence`` to the longest text that a model can read.

No torch is imported: a run checks its local checkpoints before it loads anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sparse_xp.errors import UserError
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE, read_json_object
from sparse_xp.functional.architectures import longest_text
from sparse_xp.tasks import Task


def check_text_length(checkpoint: str, config: Mapping[str, object], task: Task, sequence: int | None = None) -> None:
    """Raise UserError if the texts of ``task``, or ``export.sequence``, are longer than the model can read.

    ``config``: the content of config.json of ``checkpoint``.
    """
    try:
        longest = longest_text(config)
    except ValueError as error:
        raise UserError(f"{checkpoint}/config.json is damaged: {error}. {CHECKPOINT_ADVICE}") from error
    for name, length in (("task.max_length", task.max_length), ("export.sequence", sequence)):
        if longest is not None and length is not None and length > longest:
            raise UserError(
                f"{name}={length}: {checkpoint} reads texts of at most {longest} tokens, special ones included. Write "
                f"{name}={longest}, or choose a model that reads longer texts."
            )


def check_local_text_length(checkpoint: str, task: Task, sequence: int | None = None) -> None:
    """``check_text_length`` of a model directory; nothing for a hub id, whose config.json is not here yet."""
    path = Path(checkpoint) / "config.json"
    if path.is_file():
        check_text_length(checkpoint, read_json_object(path), task, sequence)
