"""The device and the processes of a loop of one's own: those of ``torch.distributed``, where it is in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.amp.grad_scaler import GradScaler, OptState
from torch.optim import Optimizer


def is_unscaled(scaler: GradScaler, optimizer: Optimizer) -> bool:
    """Return whether ``unscale_`` was called since the last step."""
    if not scaler.is_enabled():  # it scales nothing, and keeps no account of optimizers
        return False
    stage = scaler._per_optimizer_states.get(id(optimizer), {}).get("stage")
    return stage is OptState.UNSCALED


@dataclass
class LoopDevices:
    """What modifiers ask of the devices (``modifiers.context.Devices``)."""

    model: nn.Module
    scaler: GradScaler | None = None

    @property
    def device(self) -> torch.device:
        """The device of the model's first parameter."""
        return next(self.model.parameters()).device

    @property
    def num_processes(self) -> int:
        """The number of processes that train together."""
        return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1

    def reduce(self, tensor: Tensor, reduction: str = "sum") -> Tensor:
        """Return the ``sum`` or the ``mean`` of a tensor over all processes."""
        if self.num_processes == 1:
            return tensor
        total = tensor.clone()
        distributed.all_reduce(total)
        return total / self.num_processes if reduction == "mean" else total

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Let rank 0 pass before the others enter."""
        is_main = self.num_processes == 1 or distributed.get_rank() == 0
        if not is_main:
            distributed.barrier()
        yield
        if is_main and self.num_processes > 1:
            distributed.barrier()
