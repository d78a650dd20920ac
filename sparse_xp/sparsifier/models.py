"""The module behind a compiled or wrapped one, and whether an optimizer trains it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from sparse_xp.errors import UserError

#: wrappers that shard weights, in which no mask can be a whole one
SHARDED = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside of ``torch.compile``, ``DistributedDataParallel`` and ``DataParallel``.

    Raises UserError for anything but a module, and for one whose weights are sharded.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model is a {type(model).__name__}: expected a module of PyTorch.")
    while True:
        kinds = {kind.__name__ for kind in type(model).__mro__}
        if kinds.intersection(SHARDED):
            raise UserError(
                f"A {type(model).__name__} shards its weights, which masks do not support. An encoder fits on one "
                "device: use DistributedDataParallel."
            )
        inner = getattr(model, "_orig_mod", None)
        if inner is None and kinds.intersection(("DistributedDataParallel", "DataParallel")):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def check_trainable(model: nn.Module, optimizer: Optimizer, before: Sequence[nn.Parameter] = ()) -> None:
    """Raise UserError if the optimizer has none of the model's parameters.

    ``before``: parameters that the model had when the optimizer was made.
    """
    if not hasattr(optimizer, "param_groups"):
        raise UserError(f"optimizer is a {type(optimizer).__name__}: expected an optimizer of PyTorch.")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not held.intersection(id(parameter) for parameter in [*model.parameters(), *before]):
        raise UserError(
            "The optimizer holds none of the model's parameters: make it of model.parameters(), after the model was "
            "loaded or moved."
        )


def source_of(model: nn.Module) -> str:
    """Return where a model comes from, for messages: its checkpoint, or its class."""
    return getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__
