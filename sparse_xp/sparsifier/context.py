"""What modifiers see of a loop of one's own: the ``HookContext`` behind a ``Sparsifier``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.functional.model_calls import Batch, moved
from sparse_xp.modifiers.context import Cuts, Devices, DistillationFunction, M
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.settings import Data
from sparse_xp.sparsifier.batches import can_rebatch, covering, rebatched, repeated
from sparse_xp.sparsifier.forward_calls import Calls, joined_outputs
from sparse_xp.sparsifier.outputs import LoopOutputs, inputs_of, named_outputs, run_model
from sparse_xp.training.checkpoint import random_state, set_random_state

#: the loss of the task for a model and a batch of the loop
LossFunction = Callable[[nn.Module, Any], Tensor]
#: a teacher: a module, called as the model is, or a function from a batch to outputs
TeacherFunction = nn.Module | Callable[[Any], Any]


class LoopTeacher:
    """A teacher that runs at every step, once for each batch, even if several modifiers need its outputs.

    ``by_name``: whether modifiers read its logits, by name; otherwise they get its outputs as they are.
    """

    def __init__(self, source: TeacherFunction, by_name: bool = True):
        self.source, self.by_name = source, by_name
        self.last: tuple[object, Any] | None = None
        if isinstance(source, nn.Module):
            source.eval()
            source.requires_grad_(False)

    @property
    def model(self) -> Any:
        """The module, None for a function."""
        return self.source if isinstance(self.source, nn.Module) else None

    def __call__(self, rows: list[int], batch: Batch) -> Batch:
        """Return the outputs of the teacher for a batch, without a gradient."""
        if self.last is None or self.last[0] is not batch:
            if isinstance(self.source, nn.Module) and self.source.training:
                self.source.eval()  # train() of a module around both models has reached it
            with torch.no_grad():
                run = partial(run_model, self.source) if isinstance(self.source, nn.Module) else self.source
                outputs = joined_outputs([run(inputs) for inputs in batch]) if isinstance(batch, Calls) else run(batch)
            self.last = batch, named_outputs(outputs, "the teacher") if self.by_name else outputs
        return self.last[1]

    def forget(self) -> None:
        """Drop the outputs of the last batch, which take memory."""
        self.last = None


@dataclass(kw_only=True)
class LoopContext:
    """A loop of one's own, as its modifiers see it. ``HookContext`` says what each member is.

    ``step``: optimizer steps made, at most one less than the recipe has. ``share``: the weight of what modifiers add to
    the loss of the current micro-batch. ``batches``, ``loss_function``: those of ``Sparsifier``.
    """

    model: Any
    clock: Clock
    modifier_list: ModifierList
    accelerator: Devices
    task: LoopOutputs
    optimizer: Any = None
    teacher: LoopTeacher | None = None
    distillation_function: DistillationFunction | None = None
    batches: Iterable[Any] | None = None
    loss_function: LossFunction | None = None
    seed: int = 42
    source: str = "the model"
    cache: Path = Path(Data().cache)
    step: int = 0
    share: float = 1.0

    @property
    def directory(self) -> Path:
        """Where a latency table that was measured for this loop is kept."""
        return self.cache / "loop"

    def task_loss(self, batch: Batch) -> Tensor:
        """Return the loss of the task alone for a batch. Raises UserError if the model computes none."""
        if self.loss_function:
            return self.loss_function(self.model, batch)
        outputs = self.model(**batch) if isinstance(batch, Mapping) else run_model(self.model, batch)
        loss = getattr(outputs, "loss", None)
        if not isinstance(loss, Tensor):
            raise UserError(
                "The recipe needs gradients of the loss, and the model returns none: give loss_function=FUNCTION, "
                "which gets the model and a batch and returns the loss."
            )
        return loss

    def gradient_batches(self, count: int, batch_size: int | None, part: int) -> Iterator[Any]:
        """Yield ``count`` batches of ``batches``. Seed, step and ``part`` choose them where it is a DataLoader.

        The generators of random numbers are as before when it is done. Raises UserError without batches.
        """
        batches = self.required_batches()
        if batch_size and not can_rebatch(batches):
            raise UserError(
                f"Gradients are asked for in batches of {batch_size} rows, and batches= is no DataLoader that could "
                "make them. Leave grad_batch_size out, or give a DataLoader of a data set with a length."
            )
        states = random_state(self.accelerator.device)
        seed = self.seed
        for number in (self.step, part):
            seed = (seed * 1_000_003 + number) % 2**63
        try:
            set_seed(seed % 2**32)
            if can_rebatch(batches):
                assert isinstance(batches, DataLoader)
                order = torch.randperm(len(batches.dataset)).tolist()  # type: ignore[arg-type]
                batches = rebatched(batches, batch_size, order)
            for batch in repeated(batches, count):
                yield moved(batch, self.accelerator.device)
        finally:
            set_random_state(states, self.accelerator.device)

    def example_inputs(self) -> Batch:
        """Return the inputs of a batch. Raises UserError if neither ``batches`` nor the model has an example.

        The generators of random numbers are as before: a loop with ``batches`` shuffles as one without.
        """
        states = random_state(self.accelerator.device)
        example = getattr(self.model, "dummy_inputs", None) if self.batches is None else next(iter(self.batches), None)
        set_random_state(states, self.accelerator.device)
        if example is None:
            raise UserError(
                "The recipe compares hidden layers, whose shapes an example tells: give batches=LOADER, the batches of "
                "training."
            )
        return inputs_of(self.model, moved(example, self.accelerator.device))

    def calibration_batches(self, rows: int) -> Iterator[Any]:
        """Yield batches of inputs with ``rows`` rows in all. Raises UserError without batches."""
        for batch in covering(self.required_batches(), rows):
            yield inputs_of(self.model, moved(batch, self.accelerator.device))

    def required_batches(self) -> Iterable[Any]:
        """Return the batches of training data. Raises UserError if the loop has given none."""
        if self.batches is None:
            raise UserError("The recipe needs batches of training data of its own: give batches=LOADER.")
        return self.batches

    def shares(self, *counts: list[int]) -> list[list[float]]:
        """Return the weight of the mean of each micro-batch: that of the batch in the loop."""
        return [[self.share for _ in each] for each in counts]

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Return the tensor of rank 0."""
        if self.accelerator.num_processes > 1:
            torch.distributed.broadcast(tensor, 0)
        return tensor

    def mean_over_processes(self, value: Tensor) -> float:
        """Return the mean over all processes of a number that each has."""
        return float(self.accelerator.reduce(value, "mean").item())

    def modifiers(self, kind: type[M]) -> list[M]:
        """Return the modifiers of the recipe that are a ``kind``."""
        return [modifier for modifier in self.modifier_list.modifiers.values() if isinstance(modifier, kind)]

    def can_resize(self, cuts: Cuts) -> bool:
        """Return that no parameter may change shape between two steps: checkpoints and optimizer are the loop's."""
        return False

    def resized(self, cuts: Cuts) -> None:
        """Tell every modifier that parameters changed shape."""
        self.modifier_list.resized(self, cuts)

    def disable_autocast(self) -> None:
        """Leave autocast to the loop: quantized modules compute in float32 whatever it says."""


def adopt_parameters(optimizer: Optimizer, before: list[nn.Parameter], model: nn.Module) -> None:
    """Replace the parameters in an optimizer that modifiers have replaced in the model.

    ``before``: the parameters that the model had. New ones join the group of those that they replace.
    """
    known, now = {id(parameter) for parameter in before}, list(model.parameters())
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    gone = known - {id(parameter) for parameter in now}
    new = [parameter for parameter in now if id(parameter) not in known | held]
    for group in optimizer.param_groups:
        kept = [parameter for parameter in group["params"] if id(parameter) not in gone]
        if len(kept) < len(group["params"]):
            group["params"] = [*kept, *new]
            new = []
    if new:
        optimizer.add_param_group({"params": new})
