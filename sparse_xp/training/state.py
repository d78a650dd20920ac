"""What a run is while it trains: its progress, the wrapped model, and all that a step needs."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from sparse_xp.clock import Clock
from sparse_xp.data.batches import lengths_of
from sparse_xp.evaluation import Subject
from sparse_xp.history import History
from sparse_xp.modifiers.hooks import Recipe
from sparse_xp.settings import Train
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset


@dataclass
class Progress:
    """How far a run is: all of its state that is not a tensor."""

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    lines: int = 0  # of the history
    best: dict[str, float] = field(default_factory=dict)


class Shell(torch.nn.Module):
    """The model for Accelerate to wrap.

    Its autocast replaces ``forward`` in place, and evaluation and export want the model as it is, in float32.
    ``autocast``: set it to False to train on in float32.
    """

    def __init__(self, model: torch.nn.Module, task: Task):
        super().__init__()
        self.model, self.task, self.autocast = model, task, True

    def forward(self, **batch: torch.Tensor) -> Any:
        """Run the model."""
        device = next(iter(batch.values())).device.type
        with nullcontext() if self.autocast else torch.autocast(device, enabled=False):
            return self.task.forward(self.model, batch)


@dataclass(kw_only=True)
class Run(Subject):
    """What the hooks of a modifier may see.

    ``source`` names the checkpoint that training started from, ``cache`` is where runs keep what others may use too,
    ``origin`` is a digest of where the rows come from.
    """

    directory: Path
    cache: Path
    source: str
    origin: str
    seed: int
    train: Train
    accelerator: Accelerator
    clock: Clock
    recipe: Recipe
    history: History
    train_rows: int
    train_features: Dataset
    teacher: Taught | None = None
    optimizer: Any = None
    shell: Shell | None = None
    wrapped: Any = None  # the shell as Accelerate runs it: autocast, DDP
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each training feature."""
        return lengths_of(self.train_features)


class Taught(Protocol):
    """Logits by output name for a batch: its row numbers among the training features, and its tensors."""

    def __call__(self, rows: list[int], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Each [rows, ...] on the device of the batch, without a gradient."""
