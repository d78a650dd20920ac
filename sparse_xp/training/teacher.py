"""What the teacher says of a batch: computed once and read back in every epoch, or computed live.

The teacher is frozen, in eval mode, and sees the same tokens in every epoch, so its logits are those of the epoch
before. They are kept as float32 in memory-mapped files that later runs of the same teacher and features share.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sparse_xp.cache import cached
from sparse_xp.console import say, watch
from sparse_xp.data.batches import collate, evaluation_batches
from sparse_xp.files import digest, is_own, remove, reserve
from sparse_xp.functional.chunked_loss import always_lazy
from sparse_xp.training.environment import precision_name
from sparse_xp.training.state import Taught

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from sparse_xp.config import Teacher
    from sparse_xp.training.state import Run


@dataclass
class LiveTeacher:
    """Runs the model at every step, once for a batch, however many modifiers ask about it."""

    model: PreTrainedModel
    accelerator: Accelerator
    inputs: list[str]
    outputs: tuple[str, ...]
    last: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] | None = None

    def __call__(self, rows: list[int], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.last is None or self.last[0] is not batch:
            with torch.no_grad(), self.accelerator.autocast():
                found = self.model(**{name: batch[name] for name in self.inputs})
            self.last = batch, {name: found[name].float() for name in self.outputs}
        return self.last[1]


@dataclass
class StoredTeacher:
    """Reads what ``store_logits`` wrote. ``starts``: where each row begins, None for one entry per row."""

    arrays: dict[str, np.ndarray]
    starts: np.ndarray | None

    def __call__(self, rows: list[int], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tokens = batch["input_ids"]
        found = {}
        for name, array in self.arrays.items():
            if self.starts is None:
                values = array[rows]
            else:
                values = np.zeros((len(rows), tokens.shape[1], *array.shape[1:]), array.dtype)
                for i, row in enumerate(rows):
                    begin, stop = self.starts[row], self.starts[row + 1]
                    values[i, : stop - begin] = array[begin:stop]
            found[name] = torch.from_numpy(values).to(tokens.device, non_blocking=True)
        return found


def make_teacher(run: Run, model: PreTrainedModel, settings: Teacher, cache: Path) -> Taught:
    """The teacher of a run: stored logits where they hold and pay, the live model otherwise; says which and why."""
    accelerator = run.accelerator
    live = LiveTeacher(model, accelerator, run.inputs, run.task.outputs)
    if run.task.over_vocabulary:
        always_lazy(model)
    model.to(accelerator.device)
    if reason := why_live(run, settings):
        say(f"teacher: runs at every step ({reason})")
        return live
    directory = cache / fingerprint(run, model)
    began = time.perf_counter()
    there, too_large = False, None
    with accelerator.main_process_first():  # which every process must leave in the same way
        try:
            there = cached(directory, lambda draft: store_logits(run, live, draft, settings.max_gigabytes))
        except TooLarge as error:
            too_large = error
    if too_large:
        say(f"teacher: runs at every step ({too_large})")
        return live
    if there:
        say(f"teacher: stored logits of an earlier run ({directory})")
    else:
        say(
            f"teacher: logits of {len(run.train_features)} features stored once, {size_of(directory) / 1e6:.1f} MB "
            f"in {time.perf_counter() - began:.0f} s ({directory})"
        )
    if os.access(directory, os.W_OK):  # it may be another user's
        os.utime(directory)  # the oldest by this time is the first to go when the room is used up
    model.cpu()
    return read_logits(run, directory)


def why_live(run: Run, settings: Teacher) -> str | None:
    """Why stored logits would not hold, or not pay; None if they do both."""
    if not settings.reuse_logits:
        return "teacher.reuse_logits=false"
    if not run.task.fixed_features:
        return f"the features of task {run.task.name} change from epoch to epoch"
    for modifier in run.recipe.modifiers.values():
        if modifier.live_teacher:
            return modifier.live_teacher
    if run.clock.end <= 1:
        return "no row is seen twice in this run"
    return None


def fingerprint(run: Run, model: PreTrainedModel) -> str:
    """Of everything that shapes the logits: the teacher's weights and configuration, features, numerics."""
    weights = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().data)
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    numerics = [precision_name(run.accelerator), run.accelerator.device.type, run.train.eval_batch_size]
    parts = [weights.hexdigest(), config, run.train_features._fingerprint, run.inputs, run.task.outputs, numerics]
    return f"{run.task.name}-{digest(parts)}"


class TooLarge(Exception):
    """The logits do not fit into the room that they may take."""


def store_logits(run: Run, teacher: LiveTeacher, directory: Path, max_gigabytes: float) -> None:
    """Write one array per output into ``directory``, rows in order and without padding.

    Each is [all tokens, ...] for a task with outputs per token, [rows, ...] for others. The rows go through the
    teacher in batches of like length, so a logit differs from the one of another batch by the rounding of another
    width of padding at most. Raises TooLarge.
    """
    features, task = run.train_features, run.task
    starts = starts_of(run)
    entries = len(features) if starts is None else int(starts[-1])
    arrays: dict[str, np.ndarray] = {}
    batches = list(evaluation_batches(features, run.train.eval_batch_size))
    for rows in watch(batches, "teacher's logits"):
        batch = collate(features, rows, run.inputs, run.padding)
        lengths = batch["attention_mask"].sum(1).tolist()
        batch = {name: value.to(run.accelerator.device) for name, value in batch.items()}
        for name, value in teacher(rows, batch).items():
            values = value.cpu().numpy()
            if name not in arrays:
                shape = (entries, *values.shape[1 if starts is None else 2 :])
                make_room(directory.parent, int(np.prod(shape)) * 4 * len(task.outputs), max_gigabytes)
                path = directory / f"{name}.npy"
                arrays[name] = np.lib.format.open_memmap(path, "w+", np.float32, shape)
                reserve(path, path.stat().st_size)
            if starts is None:
                arrays[name][rows] = values
            else:
                for row, length, kept in zip(rows, lengths, values, strict=True):
                    arrays[name][starts[row] : starts[row + 1]] = kept[:length]
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]


def read_logits(run: Run, directory: Path) -> StoredTeacher:
    """The arrays of ``directory``, memory-mapped."""
    arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in run.task.outputs}
    return StoredTeacher(arrays, starts_of(run))


def starts_of(run: Run) -> np.ndarray | None:
    """Where the tokens of each row begin among those of all rows, and at last how many there are."""
    return np.concatenate([[0], np.cumsum(run.lengths)]) if run.task.per_token else None


def make_room(cache: Path, size: int, max_gigabytes: float) -> None:
    """Remove the logits used longest ago until ``size`` more bytes stay within the limit. Raises TooLarge."""
    limit = max_gigabytes * 1e9
    if size > limit:
        raise TooLarge(f"its logits need {size / 1e9:.1f} GB, and teacher.max_gigabytes={max_gigabytes:g}")
    kept = [path for path in cache.iterdir() if not path.name.startswith(".") and is_own(path, "cache")]
    sizes = {path: size_of(path) for path in kept}
    for path in sorted(kept, key=lambda path: path.stat().st_mtime):
        if sum(sizes.values()) + size <= limit:
            break
        remove(path, "cache")  # a run that reads it keeps what it has mapped
        del sizes[path]


def size_of(directory: Path) -> int:
    """Bytes of the files in a directory."""
    return sum(file.stat().st_size for file in directory.iterdir())
