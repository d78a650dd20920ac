"""The state of a run: ``Run`` holds everything that the loop needs, and is the ``HookContext`` of its modifiers.

``preparation.assemble`` creates it, ``run.start`` adds the optimizer and the wrapped model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparse_xp.clock import Clock
from sparse_xp.data.batches import collate, epoch_batches, epoch_seed, lengths_of, pad_to_bucket
from sparse_xp.data.flat_columns import FlatColumn, flat_columns
from sparse_xp.evaluation import EvalContext, spread_batches, to_device
from sparse_xp.functional.padding_mask import call_without_mask
from sparse_xp.history import History
from sparse_xp.modifiers.context import Cuts, M, TeacherModel
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.settings import Train
from sparse_xp.tasks import Task
from sparse_xp.training.compiled import EncoderForward, encoder_of, forward_replaced
from sparse_xp.training.optimizer import cut_moments

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset
    from transformers import PreTrainedModel
    from transformers.utils.generic import ModelOutput


@dataclass
class Progress:
    """How far a run is: the part of its state that is not tensors. Checkpoints save it.

    ``step``: optimizer steps made. ``seconds``: time spent in them. ``skipped``: how many of them changed no weight,
    because gradients overflowed in fp16. ``best_step``, ``best``: step and metrics of the
    best model so far. ``lines``: the number of lines of history.jsonl. ``stopped``: whether ``train.early_stopping``
    has ended the run. ``stale``: evaluations since the last improvement; ``improved``: the score that was one.
    """

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    lines: int = 0
    best: dict[str, float] = field(default_factory=dict)
    stopped: bool = False
    stale: int = 0
    improved: float | None = None
    skipped: int = 0


class TrainingWrapper(torch.nn.Module):
    """The module that is handed to ``accelerator.prepare``.

    Autocast patches the ``forward`` of this wrapper, so that evaluation and export still call the plain float32 model.
    ``autocast``: False trains in float32 from then on. ``compiled``: the encoder's forward pass of ``train.compile``.
    """

    def __init__(self, model: PreTrainedModel, task: Task, compiled: EncoderForward | None = None):
        super().__init__()
        self.model, self.task, self.autocast, self.compiled = model, task, True, compiled

    def forward(self, padded: bool = True, labelled: bool = True, **batch: torch.Tensor) -> ModelOutput:
        """Return the model's outputs for a training batch, the loss among them if it is ``labelled``.

        ``padded``: False if the batch is known to have no padding. The model then gets no mask: PyTorch has faster
        kernels for attention without one. The loss may still ask for it.
        """
        device = next(iter(batch.values())).device.type
        model = self.model if padded else partial(call_without_mask, self.model)
        encoder = nullcontext() if self.compiled is None else forward_replaced(encoder_of(self.model), self.compiled)
        with nullcontext() if self.autocast else torch.autocast(device, enabled=False), encoder:
            outputs: ModelOutput = self.task.forward(model, batch) if labelled else model(**batch)
        return outputs


@dataclass(kw_only=True)
class Run(EvalContext):
    """A run in training, which its modifiers see as ``HookContext``.

    ``cache``: the directory of what runs share, teacher logits for instance. ``source``: the checkpoint that training
    starts from. ``origin``: a digest of the source of the rows. ``modifier_list``: its modifiers.
    ``num_train_rows``: the number of training rows; the evaluation rows are ``eval_rows`` (of ``EvalContext``).
    ``unlabeled_features``: the features of rows without labels. They are numbered after those of the training rows.
    """

    directory: Path
    cache: Path
    source: str
    origin: str
    seed: int
    train: Train
    accelerator: Accelerator
    clock: Clock
    modifier_list: ModifierList
    history: History
    num_train_rows: int
    train_features: Dataset
    unlabeled_features: Dataset | None = None
    num_unlabeled_rows: int = 0
    teacher: TeacherModel | None = None
    optimizer: Any = None
    wrapper: TrainingWrapper | None = None
    prepared_model: Any = None  # ``wrapper`` as Accelerate prepared it: autocast, DDP
    progress: Progress = field(default_factory=Progress)
    skipped: torch.Tensor | None = None  # steps skipped in fp16 that ``progress`` does not count yet, on the device

    @property
    def distillation_function(self) -> None:
        """The command has no distillation loss but that of ``Distillation``."""

    @property
    def step(self) -> int:
        """The number of optimizer steps already made."""
        return self.progress.step

    @cached_property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters of the model, listed once: their gradients are clipped in every step."""
        return list(self.prepared_model.parameters())

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each training feature."""
        return lengths_of(self.train_features)

    @cached_property
    def all_features(self) -> Dataset:
        """The model's inputs of all training features: those with labels, then those without."""
        if self.unlabeled_features is None:
            return self.train_features
        from datasets import concatenate_datasets

        parts = (self.train_features, self.unlabeled_features)
        return concatenate_datasets([part.select_columns(self.inputs) for part in parts])

    @cached_property
    def all_lengths(self) -> list[int]:
        """Tokens of each of ``all_features``."""
        return self.lengths if self.unlabeled_features is None else lengths_of(self.all_features)

    @cached_property
    def input_columns(self) -> dict[str, FlatColumn]:
        """The model's inputs of ``all_features``."""
        return flat_columns(self.all_features, self.inputs)

    def is_labelled(self, rows: list[int]) -> bool:
        """Return whether the features of a micro-batch have labels: either all have, or none."""
        return self.unlabeled_features is None or rows[0] < len(self.train_features)

    @cached_property
    def train_columns(self) -> dict[str, FlatColumn]:
        """The columns of the training features that go into a batch."""
        return flat_columns(self.train_features, [*self.inputs, *self.task.batch_columns])

    def host_batch(self, rows: list[int], epoch: int) -> dict[str, torch.Tensor]:
        """Return the training features ``rows`` as the model sees them in an epoch, in host memory.

        Features without labels have the model's inputs alone.
        """
        labelled = self.is_labelled(rows)
        columns = self.train_columns if labelled else self.input_columns
        batch = collate(columns, rows, list(columns), self.padding)
        if self.device.type == "cuda":
            # Few widths: memory and kernels are looked for once for each, and tensor cores want multiples of 8.
            batch = pad_to_bucket(batch, self.padding, self.task.max_length)
        if not labelled:
            return batch
        return self.task.apply_dynamic_masking(batch, rows, epoch_seed(self.seed, epoch), self.tokenizer)

    def training_batch(self, rows: list[int]) -> dict[str, torch.Tensor]:
        """Return the training features ``rows`` as the model sees them in this epoch, on the device."""
        return to_device(self, self.host_batch(rows, self.step // self.clock.steps_per_epoch))

    def input_batch(self, rows: list[int]) -> dict[str, torch.Tensor]:
        """Return the model's inputs of the training features ``rows``, without labels, on the device."""
        return to_device(self, collate(self.train_columns, rows, self.inputs, self.padding))

    def task_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of the task alone for a training batch."""
        return self.task.curvature_loss(self.model, batch)

    def gradient_batches(self, count: int, batch_size: int | None, part: int) -> Iterator[dict[str, torch.Tensor]]:
        """Yield ``count`` training batches; ``gradient_rows`` says which."""
        for rows in self.gradient_rows(count, batch_size, part):
            yield self.training_batch(rows)

    def gradient_rows(self, count: int, batch_size: int | None, part: int) -> Iterator[list[int]]:
        """Yield the row indices of ``count`` batches, from as many shuffled epochs as that takes.

        They depend on seed, step and ``part`` alone, so that a resumed run has the same.
        """
        left = count
        for epoch in range(count):  # an epoch has at least one batch
            # A seed of its own for each epoch of each part of each step, without touching a global generator.
            seed = self.seed
            for number in (self.step, part, epoch):
                seed = (seed * 1_000_003 + number) % 2**63
            for rows in self.shuffled_batches(batch_size, seed)[:left]:
                left -= 1
                yield rows
            if not left:
                return

    def example_inputs(self) -> dict[str, torch.Tensor]:
        """Return the model's inputs of the first training feature, without labels, on the device."""
        return self.input_batch([0])

    def shuffled_batches(self, batch_size: int | None, seed: int) -> list[list[int]]:
        """Return the row indices of one epoch of batches, shuffled by ``seed`` alone."""
        together = self.task.features_per_row
        lengths = [max(self.lengths[i : i + together]) for i in range(0, len(self.lengths), together)]
        batches = epoch_batches(lengths, batch_size or self.train.batch_size, seed, self.train.group_by_length)
        return [[row * together + part for row in batch for part in range(together)] for batch in batches]

    def calibration_batches(self, rows: int) -> Iterator[dict[str, torch.Tensor]]:
        """Yield batches of inputs of ``rows`` training features, spread evenly over all of them."""
        return spread_batches(self, self.train_features, rows)

    def shares(self, *counts: list[int]) -> list[list[float]]:
        """Return the weight of the mean of each micro-batch in the mean of the whole step, over all processes.

        ``counts``: the number of terms of each mean, for each kind of mean; all of them take one reduction. DDP
        averages the gradients of processes, hence their number as a factor.
        """
        processes, totals = self.accelerator.num_processes, list(map(sum, counts))
        if processes > 1:
            totals = self.accelerator.reduce(torch.tensor(totals, device=self.device)).tolist()
        return [
            [count * processes / max(1, total) for count in each] for each, total in zip(counts, totals, strict=True)
        ]

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor of rank 0."""
        from accelerate.utils import broadcast

        received: torch.Tensor = broadcast(tensor)
        return received

    def mean_over_processes(self, value: torch.Tensor) -> float:
        """Return the mean over all processes of a number that each has."""
        mean = self.accelerator.reduce(value, "mean") if self.accelerator.num_processes > 1 else value
        return float(mean.item())

    def modifiers(self, kind: type[M]) -> list[M]:
        """Return the modifiers of this run that are a ``kind``."""
        return [modifier for modifier in self.modifier_list.modifiers.values() if isinstance(modifier, kind)]

    def can_resize(self, cuts: Cuts) -> bool:
        """Return whether these parameters may change shape between two steps.

        With several processes they may not: DDP has made its buffers for the shapes at the start. Nor may they with
        ``train.compile``: recorded CUDA graphs read the memory of the parameters at the start.
        """
        compiled = self.wrapper is not None and self.wrapper.compiled is not None
        return self.accelerator.num_processes == 1 and not compiled and self.modifier_list.allows_cuts(self, cuts)

    def resized(self, cuts: Cuts) -> None:
        """Cut the optimizer's moments of parameters that change shape, and what modifiers keep about them."""
        if self.optimizer is not None:
            cut_moments(self.optimizer, self.model, cuts)
        self.modifier_list.resized(self, cuts)

    def disable_autocast(self) -> None:
        """Train in float32 from now on, whatever ``train.precision`` says."""
        assert self.wrapper is not None
        self.wrapper.autocast = False
