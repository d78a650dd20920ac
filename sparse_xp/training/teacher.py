"""The logits of the teacher: computed once and read from disk in every epoch, or computed at every step.

Most tasks have the same features in every epoch, and so the same logits. They are cached as one array per output, and
reused by every run with the same teacher, features and precision (``fingerprint``). ``choose_teacher`` decides.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparse_xp.cache import ensure_cached
from sparse_xp.console import progress_bar, say
from sparse_xp.data.batches import collate, evaluation_batches
from sparse_xp.data.flat_columns import flat_columns
from sparse_xp.files.checksums import json_digest
from sparse_xp.files.ownership import is_own, remove_own
from sparse_xp.files.writing import reserve_space
from sparse_xp.functional.chunked_loss import make_always_lazy
from sparse_xp.functional.model_calls import sent
from sparse_xp.modifiers.context import TeacherModel
from sparse_xp.training.environment import precision_name
from sparse_xp.training.unlabeled import features_per_epoch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from sparse_xp.settings import TeacherSource
    from sparse_xp.training.state import Run


@dataclass
class LiveTeacher:
    """A teacher that runs at every step, once for each batch, even if several modifiers need its logits.

    ``last``: the rows of the latest batch, as the very list, and its logits.
    """

    model: PreTrainedModel
    accelerator: Accelerator
    inputs: list[str]
    outputs: tuple[str, ...]
    last: tuple[list[int], dict[str, torch.Tensor]] | None = None

    def __call__(self, rows: list[int], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.last is None or self.last[0] is not rows:
            with torch.no_grad(), self.accelerator.autocast():
                outputs = self.model(**{name: batch[name] for name in self.inputs})
            self.last = rows, {name: outputs[name].float() for name in self.outputs}
        return self.last[1]


@dataclass
class StoredTeacher:
    """A teacher whose logits ``store_logits`` has written.

    ``arrays``: logits by output, memory-mapped. ``starts``: the index of each row's first token in the arrays; None if
    they have one entry per row. ``at_hand``: the logits of the current step that were read before it began.
    """

    arrays: dict[str, np.ndarray]
    starts: np.ndarray | None
    model: None = None
    at_hand: Mapping[tuple[int, ...], dict[str, torch.Tensor]] = field(default_factory=dict)

    def __call__(self, rows: list[int], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tokens = batch["input_ids"]
        logits = self.at_hand.get(tuple(rows)) or self.read(rows, tokens.shape[1])
        return {name: sent(values, tokens.device) for name, values in logits.items()}

    def read(self, rows: list[int], tokens: int) -> dict[str, torch.Tensor]:
        """Return the logits of ``rows``, padded with 0 to ``tokens``, in host memory."""
        if self.starts is None:
            return {name: torch.from_numpy(array[rows]) for name, array in self.arrays.items()}
        begins = self.starts[rows]
        places = np.arange(tokens)
        real = places < (self.starts[np.add(rows, 1)] - begins)[:, None]
        entries = (begins[:, None] + places)[real]
        logits = {}
        for name, array in self.arrays.items():
            values = np.zeros((len(rows), tokens, *array.shape[1:]), array.dtype)
            values[real] = array[entries]
            logits[name] = torch.from_numpy(values)
        return logits


def choose_teacher(run: Run, model: PreTrainedModel, settings: TeacherSource, cache: Path) -> TeacherModel:
    """Return stored logits if they are valid and the run reads them more than once, otherwise the live model.

    Print which of the two it is, and why.
    """
    accelerator = run.accelerator
    live = LiveTeacher(model, accelerator, run.inputs, run.task.outputs)
    if run.task.is_language_model:
        make_always_lazy(model)
    model.to(accelerator.device)
    if reason := why_live(run, settings):
        say(f"teacher: runs at every step ({reason})")
        return live
    directory = cache / fingerprint(run, model)
    began = time.perf_counter()
    was_cached, too_large = False, None
    with accelerator.main_process_first():
        # Every process must leave this block normally, or the others wait for ever. So the error is handled after it.
        try:
            was_cached = ensure_cached(directory, lambda draft: store_logits(run, live, draft, settings.max_gigabytes))
        except TooLarge as error:
            too_large = error
    if too_large:
        say(f"teacher: runs at every step ({too_large})")
        return live
    if was_cached:
        say(f"teacher: stored logits of an earlier run ({directory})")
    else:
        say(
            f"teacher: logits of {len(run.all_features)} features stored once, {size_of(directory) / 1e6:.1f} MB "
            f"in {time.perf_counter() - began:.0f} s ({directory})"
        )
    if os.access(directory, os.W_OK):  # the cache may be shared and read-only
        os.utime(directory)  # eviction is LRU by modification time
    model.cpu()
    return read_logits(run, directory)


def why_live(run: Run, settings: TeacherSource) -> str | None:
    """Return the reason why stored logits are invalid or save no time; None if the run should use them."""
    if not settings.reuse_logits:
        return "teacher.reuse_logits=false"
    if not run.task.fixed_features:
        return f"the features of task {run.task.name} change from epoch to epoch"
    for modifier in run.modifier_list.modifiers.values():
        if modifier.live_teacher:
            return modifier.live_teacher
    if run.unlabeled_features is None:
        return "no row is seen twice in this run" if run.clock.end <= 1 else None
    # Of a large file of texts a short run reads a part.
    read = run.clock.end * features_per_epoch(run)
    return "the run does not read as many rows as there are" if read <= len(run.all_features) else None


def fingerprint(run: Run, model: PreTrainedModel) -> str:
    """Return a digest of everything that shapes the logits: weights, configuration, features, precision, device."""
    numerics = [precision_name(run.accelerator), run.accelerator.device.type, run.train.eval_batch_size]
    parts = [*model_digest(model), run.train_features._fingerprint, run.inputs, run.task.outputs, numerics]
    if run.unlabeled_features is not None:
        parts.append(run.unlabeled_features._fingerprint)
    return f"{run.task.name}-{json_digest(parts)}"


def model_digest(model: PreTrainedModel) -> list[Any]:
    """Return a digest of the weights, and the configuration: what a model computes."""
    weights = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().data)
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    head = getattr(model, "sentence_head", None)
    return [weights.hexdigest(), config, *([str(head)] if head else [])]


class TooLarge(Exception):
    """The logits would take more disk than ``teacher.max_gigabytes``."""


def store_logits(run: Run, teacher: LiveTeacher, directory: Path, max_gigabytes: float) -> None:
    """Write one array per output into ``directory``, rows in order and without padding.

    An array is [all tokens, ...] for a task with outputs per token, [rows, ...] for others. Rows are batched by similar
    length. Their padding differs from that of training batches, which changes logits by rounding errors only. Raises
    TooLarge.
    """
    features, task = run.all_features, run.task
    columns, starts = flat_columns(features, run.inputs), starts_of(run)
    entries = len(features) if starts is None else int(starts[-1])
    arrays: dict[str, np.ndarray] = {}
    batches = list(evaluation_batches(features, run.train.eval_batch_size))
    for rows in progress_bar(batches, "teacher's logits"):
        batch = collate(columns, rows, run.inputs, run.padding)
        lengths = batch["attention_mask"].sum(1).tolist()
        batch = {name: sent(value, run.accelerator.device) for name, value in batch.items()}
        for name, value in teacher(rows, batch).items():
            values = value.cpu().numpy()
            if name not in arrays:
                shape = (entries, *values.shape[1 if starts is None else 2 :])
                evict(directory.parent, int(np.prod(shape)) * 4 * len(task.outputs), max_gigabytes)
                path = directory / f"{name}.npy"
                arrays[name] = np.lib.format.open_memmap(path, "w+", np.float32, shape)
                reserve_space(path, path.stat().st_size)
            if starts is None:
                arrays[name][rows] = values
            else:
                for row, length, padded in zip(rows, lengths, values, strict=True):
                    arrays[name][starts[row] : starts[row + 1]] = padded[:length]
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]


def read_logits(run: Run, directory: Path) -> StoredTeacher:
    """Return the stored logits of ``directory``, memory-mapped."""
    arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in run.task.outputs}
    return StoredTeacher(arrays, starts_of(run))


def starts_of(run: Run) -> np.ndarray | None:
    """Return the offset of each row's first token among all tokens, then their total; None for one entry per row."""
    return np.concatenate([[0], np.cumsum(run.all_lengths)]) if run.task.per_token else None


def evict(cache: Path, size: int, max_gigabytes: float) -> None:
    """Evict least recently used logits until ``size`` more bytes fit. Raises TooLarge if they cannot fit at all."""
    limit = max_gigabytes * 1e9
    if size > limit:
        raise TooLarge(f"its logits need {size / 1e9:.1f} GB, and teacher.max_gigabytes={max_gigabytes:g}")
    entries = [path for path in cache.iterdir() if not path.name.startswith(".") and is_own(path, "cache")]
    sizes = {path: size_of(path) for path in entries}
    for path in sorted(entries, key=lambda path: path.stat().st_mtime):
        if sum(sizes.values()) + size <= limit:
            break
        remove_own(path, "cache")  # open memory maps survive this
        del sizes[path]


def size_of(directory: Path) -> int:
    """Return the bytes of the files in a directory."""
    return sum(file.stat().st_size for file in directory.iterdir())
