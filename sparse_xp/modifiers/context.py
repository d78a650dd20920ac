"""The part of a run that modifiers see.

The hooks of ``modifiers/base.py`` get a ``HookContext``. ``training/state.py`` has the object behind it; your own
training loop needs an object with just these members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from sparse_xp.clock import Clock
    from sparse_xp.tasks import Task

M = TypeVar("M")

#: for each parameter that changed shape, by name: a function that cuts a tensor of its old shape to the new one, or
#: None for a parameter that was removed
Cuts = Mapping[str, "Callable[[Tensor], Tensor] | None"]


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
    def task(self) -> Task:
        """The task: names of outputs, padding masks, the loss."""

    @property
    def teacher(self) -> TeacherModel | None:
        """The teacher, if the run has one."""

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
    def accelerator(self) -> Accelerator:
        """Device, autocast, gradient scaler, and reductions over processes."""

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

    def training_batch(self, rows: list[int]) -> dict[str, Tensor]:
        """Return the training features ``rows`` as the model sees them in this epoch, on the device."""

    def input_batch(self, rows: list[int]) -> dict[str, Tensor]:
        """Return the model's inputs of the training features ``rows``, without labels, on the device."""

    def shuffled_batches(self, batch_size: int | None, seed: int) -> list[list[int]]:
        """Return the row indices of one epoch of batches, shuffled by ``seed`` alone.

        ``batch_size``: by default that of training.
        """

    def calibration_batches(self, rows: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches of inputs of ``rows`` training features, spread evenly over all of them."""

    def shares(self, counts: list[int]) -> list[float]:
        """Return the weight of the mean of each micro-batch in the mean of the whole step, over all processes.

        ``counts``: the number of terms of each mean.
        """

    def mean_over_processes(self, value: Tensor) -> float:
        """Return the mean over all processes of a number that each has."""

    def modifiers(self, kind: type[M]) -> Sequence[M]:
        """Return the modifiers of this run that are a ``kind``."""

    def resized(self, cuts: Cuts) -> None:
        """Tell every modifier that parameters changed shape (hook ``Modifier.resized``)."""

    def disable_autocast(self) -> None:
        """Train in float32 from now on, whatever ``train.precision`` says."""
