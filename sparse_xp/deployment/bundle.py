"""The files beside ``model.onnx``: ``task.json``, ``deployment.json``, ``model_card.md`` and ``recipe.yaml``.

``samples.py`` writes the samples, ``files.directories.atomic_directory`` the checksums of all files. Predicting and
verifying read these files again, without torch and transformers. Everything that is read is validated: folders are
untrusted.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.onnx_file import EXPORT_AGAIN
from sparse_xp.files.json_text import to_json
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.untrusted_json import parse_json_object
from sparse_xp.files.writing import write_text
from sparse_xp.functional.architectures import longest_text
from sparse_xp.renamed_keys import current_task_fields
from sparse_xp.schema import fits, from_json
from sparse_xp.tasks import TASKS
from sparse_xp.tasks.base import Task


def write_task(directory: Path, task: Task, pad_token_id: int) -> None:
    """Write ``task.json``: the fields of the task that predicting needs, and the names of the labels."""
    left_out = task.training_only_fields()
    fields = {name: value for name, value in asdict(task).items() if name not in left_out}
    content = {
        "kind": type(task).__name__,
        "fields": fields,
        "labels": task.label_names,
        "outputs": list(task.outputs),
        "pad_token_id": pad_token_id,
    }
    write_text(directory / "task.json", to_json(content, indent=2) + "\n")


def read_task(directory: Path) -> tuple[Task, int]:
    """Return the task that ``write_task`` wrote, and the id of the padding token. Raises UserError for another file."""
    path = directory / "task.json"
    with explain_read_errors(path, EXPORT_AGAIN):
        stored = parse_json_object(path.read_bytes())
        kind, pad = stored["kind"], stored["pad_token_id"]
        if not isinstance(kind, str) or kind not in TASKS:
            raise ValueError(f"kind: expected one of {', '.join(TASKS)}")
        if not fits(pad, int, bounded=True) or pad < 0:
            raise ValueError("pad_token_id: expected the id of a token")
        fields = stored["fields"]
        if isinstance(fields, dict):
            fields = current_task_fields(fields, [field.name for field in dataclasses.fields(TASKS[kind])])
        return from_json(TASKS[kind], fields), pad


@dataclass(frozen=True)
class LogitLimits:
    """How far logits may be from the recorded ones: one of the two limits, the other is None.

    ``max_abs_diff``: the largest difference of a logit (fp32 files). ``max_rms_diff``: the root mean square of all
    differences, divided by the standard deviation of the logits (int8 files).
    """

    max_abs_diff: float | None
    max_rms_diff: float | None


@dataclass(frozen=True)
class Origin:
    """The content of ``deployment.json``: the CPU and the onnxruntime that computed ``samples/``.

    ``integers``: whether the file computes in int8. ``portable``: whether it computes the same in every session on
    every CPU (``functional.saturation``). ``limits``: how far the logits of another machine may differ.
    """

    cpu: str
    onnxruntime: str
    integers: bool
    portable: bool
    limits: LogitLimits


def write_deployment(directory: Path, integers: bool, portable: bool, limits: LogitLimits) -> None:
    """Write ``deployment.json``, for this CPU."""
    origin = Origin(str(this_cpu()), version("onnxruntime"), integers, portable, limits)
    write_text(directory / "deployment.json", to_json(asdict(origin), indent=2) + "\n")


def read_deployment(directory: Path) -> Origin:
    """Return what ``write_deployment`` wrote. Raises UserError if the file is missing or has another form."""
    path = directory / "deployment.json"
    with explain_read_errors(path, EXPORT_AGAIN):
        stored = parse_json_object(path.read_bytes())
        return from_json(Origin, {**stored, "limits": from_json(LogitLimits, stored["limits"])})


def max_tokens(directory: Path) -> int | None:
    """Return the number of tokens of the longest text that the model can read; None for any number.

    Raises UserError if ``config.json`` does not state it.
    """
    with explain_read_errors(directory / "config.json", EXPORT_AGAIN):
        config = parse_json_object((directory / "config.json").read_bytes())
        if not fits(config["max_position_embeddings"], int, bounded=True):
            raise ValueError("max_position_embeddings: expected a whole number")
        return longest_text(config)


def vocabulary_size(directory: Path) -> int:
    """Return the number of tokens of the model. Raises UserError if ``config.json`` has none."""
    path = directory / "config.json"
    with explain_read_errors(path, EXPORT_AGAIN):
        value = parse_json_object(path.read_bytes())["vocab_size"]
        if not fits(value, int, bounded=True) or value < 1:
            raise ValueError("vocab_size: expected a whole number of at least 1")
        return int(value)


def write_card_and_recipe(directory: Path, card: str, recipe: Path | None) -> None:
    """Add the files that need the measured result: ``model_card.md``, and ``recipe.yaml`` if a run has one."""
    write_text(directory / "model_card.md", card)
    if recipe and recipe.is_file():
        shutil.copyfile(recipe, directory / "recipe.yaml")
