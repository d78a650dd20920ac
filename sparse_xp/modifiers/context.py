"""The part of a run that modifiers see.

The hooks of ``modifiers/base.py`` get a ``HookContext``. The object behind it is ``training/state.Run`` in the loop of
the command, and ``sparsifier/context.LoopContext`` in a loop of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.amp.grad_scaler import GradScaler
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from sparse_xp.clock import Clock
    from sparse_xp.functional.model_calls import Batch

M = TypeVar("M")

#: for each parameter that changed shape, by name: a function that cuts a tensor of its old shape to the new one, or
#: None for a parameter that was removed
Cuts = Mapping[str, "Callable[[Tensor], Tensor] | None"]


#: a distillation loss of one's own: from outputs of the student, outputs of the teacher and the batch to a scalar
DistillationFunction = Callable[[Any, Any, Any], "Tensor"]


class Devices(Protocol):
    """The device, the processes and the gradient scaler of a run: the part of Accelerate's ``Accelerator`` in use."""

    @property
    def device(self) -> torch.device:
        """The device of the model."""

    @property
    def num_processes(self) -> int:
        """The number of processes that train together."""

    @property
    def scaler(self) -> GradScaler | None:
        """The scaler of the loss in fp16, None in other precisions."""

    def reduce(self, tensor: Tensor, reduction: str = "sum") -> Tensor:
        """Return the ``sum`` or the ``mean`` of a tensor over all processes."""

    def main_process_first(self) -> AbstractContextManager[None]:
        """Return a context that rank 0 passes before the others enter it."""


class Outputs(Protocol):
    """What distillation has to know of the model's outputs. A ``Task`` knows it."""

    @property
    def name(self) -> str:
        """The name of the task, for messages."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the logits; empty before the first batch where only the outputs can tell."""

    @property
    def problem_type(self) -> str:
        """The problem type of the logits, in transformers' terms."""

    @property
    def loss_reduction(self) -> str:
        """How the loss terms of several outputs combine: ``mean`` or ``sum``."""

    @property
    def embeds(self) -> bool:
        """Whether the output is one vector for each text, which ``HookContext.task_loss`` projects."""

    def class_mask(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return which entries of the outputs' last dimension are real, [rows, classes] bool; None for all of them."""

    def token_mask(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return which tokens have outputs that count, [rows, tokens] bool; None for outputs without tokens."""


class TeacherModel(Protocol):
    """The teacher of a run: its logits, computed now or read from the disk."""

    @property
    def model(self) -> PreTrainedModel | None:
        """The teacher itself, None if only its logits are stored."""

    def __call__(self, rows: list[int], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits of a batch by output name, [rows, ...], on the batch's device, without a gradient.

        ``rows``: the indices of the batch's training features.
        """


class HookContext(Protocol):
    """All that a modifier may see and touch."""

    @property
    def model(self) -> PreTrainedModel:
        """The student, in float32."""

    @property
    def task(self) -> Outputs:
        """The task: names of outputs, padding masks."""

    @property
    def teacher(self) -> TeacherModel | None:
        """The teacher, if the run has one."""

    @property
    def distillation_function(self) -> DistillationFunction | None:
        """A distillation loss of one's own, in place of that of ``Distillation``."""

    @property
    def clock(self) -> Clock:
        """The length of the run; converts between steps and epochs."""

    @property
    def step(self) -> int:
        """The number of optimizer steps already made."""

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer. Not there yet in ``attach`` and ``parameters``."""

    @property
    def accelerator(self) -> Devices:
        """Device, gradient scaler, and reductions over processes."""

    @property
    def seed(self) -> int:
        """The seed of the run."""

    @property
    def source(self) -> str:
        """The checkpoint that training starts from, for messages."""

    @property
    def directory(self) -> Path:
        """The directory of the run."""

    @property
    def cache(self) -> Path:
        """The directory for what several runs can share."""

    def task_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of the task alone for a training batch."""

    def gradient_batches(self, count: int, batch_size: int | None, part: int) -> Iterator[dict[str, Tensor]]:
        """Yield ``count`` training batches as the model sees them in this epoch, on the device.

        They depend on seed, step and ``part`` alone. ``batch_size``: None for that of training.
        """

    def example_inputs(self) -> Batch:
        """Return the model's inputs of a training row or batch, without labels, on the device (``call_model``)."""

    def calibration_batches(self, rows: int) -> Iterator[Any]:
        """Yield batches of inputs of ``rows`` training features, spread evenly over all of them."""

    def shares(self, *counts: list[int]) -> list[list[float]]:
        """Return the weight of the mean of each micro-batch in the mean of the whole step, over all processes.

        ``counts``: the number of terms of each mean, for each kind of mean (over rows, over tokens).
        """

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Return the tensor of rank 0. With one process that is ``tensor``."""

    def mean_over_processes(self, value: Tensor) -> float:
        """Return the mean over all processes of a number that each has."""

    def modifiers(self, kind: type[M]) -> Sequence[M]:
        """Return the modifiers of this run that are a ``kind``."""

    def can_resize(self, cuts: Cuts) -> bool:
        """Return whether these parameters may change shape between two steps."""

    def resized(self, cuts: Cuts) -> None:
        """Cut what is kept about parameters that change shape: in the optimizer, and by modifiers (``resized``)."""

    def disable_autocast(self) -> None:
        """Train in float32 from now on, whatever ``train.precision`` says."""
