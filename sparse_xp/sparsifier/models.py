"""The module behind a compiled or wrapped one, and whether an optimizer trains it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from sparse_xp.errors import UserError
from sparse_xp.functional.unwrapping import check_own_weights, unwrap

#: wrappers that shard weights, in which no mask can be a whole one
SHARDED = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")
DISTRIBUTED = "DistributedDataParallel"


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside of ``torch.compile``, ``DistributedDataParallel`` and ``DataParallel``.

    Raises UserError for anything but a module.
    """
    if not isinstance(model, nn.Module):
        given = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise UserError(f"model: expected a module of PyTorch, not {given}.")
    return unwrap(model)


def wrapping(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a model, what it wraps, and so on to the module itself."""
    while True:
        yield model
        inner = getattr(model, "_orig_mod", None)
        if inner is None and kinds_of(model).intersection((DISTRIBUTED, "DataParallel")):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return
        model = inner


def kinds_of(module: nn.Module) -> set[str]:
    """Return the names of the classes that a module is an instance of."""
    return {kind.__name__ for kind in type(module).__mro__}


def check_weights(model: nn.Module) -> None:
    """Raise UserError for a model without weights, and for weights that are not there yet or sharded."""
    kind = type(model).__name__
    for name, module in model.named_modules():
        if kinds_of(module).intersection(SHARDED):
            raise UserError(
                f"{name or 'The model'} is a {type(module).__name__}, which shards its weights: masks do not support "
                "that. An encoder fits on one device: use DistributedDataParallel."
            )
    if not any(True for _ in model.parameters()):
        raise UserError(f"{kind} has no parameters: there is nothing to train.")
    for name, weight in model.named_parameters():
        if is_lazy(weight) or weight.is_meta:
            raise UserError(
                f"{name} of {kind} has no values yet (device meta, or a lazy module): load the weights, or make one "
                "forward pass, and then the Sparsifier."
            )
        if type(weight.data).__name__ == "DTensor":
            raise UserError(
                f"{name} of {kind} is a DTensor, spread over devices: masks do not support that. Use "
                "DistributedDataParallel."
            )
    check_own_weights(model)


def check_structure(model: nn.Module, names: Sequence[str]) -> None:
    """Raise UserError if modifiers that replace modules (``names``) come after ``DistributedDataParallel``."""
    if names and any(DISTRIBUTED in kinds_of(each) for each in wrapping(model)):
        raise UserError(
            f"{', '.join(names)} replaces modules, and DistributedDataParallel has wrapped the model already: make the "
            "Sparsifier first, and wrap the model then."
        )


def check_trainable(model: nn.Module, optimizer: Optimizer, before: Sequence[nn.Parameter] = ()) -> None:
    """Raise UserError if the optimizer has none of the model's parameters.

    ``before``: parameters that the model had when the optimizer was made.
    """
    if not hasattr(optimizer, "param_groups"):
        given = f"the class {optimizer.__name__}" if isinstance(optimizer, type) else type(optimizer).__name__
        raise UserError(f"optimizer: expected an optimizer of PyTorch, not {given}.")
    closure = inspect.signature(innermost(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UserError(
            f"{type(optimizer).__name__} computes the loss several times in a step (a closure), between which pruned "
            "weights would move. Take an optimizer whose step() needs no closure, such as AdamW or SGD."
        )
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not held.intersection(id(parameter) for parameter in [*model.parameters(), *before]):
        raise UserError(
            "The optimizer holds none of the model's parameters: make it of model.parameters(), after the model was "
            "loaded or moved."
        )


def innermost(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer inside of wrappers such as that of Accelerate."""
    inner: Optimizer | None = getattr(optimizer, "optimizer", None)
    return optimizer if inner is None else innermost(inner)


def at_end_of_batch(optimizer: object) -> bool:
    """Return whether an optimizer steps now: Accelerate's steps in the last micro-batch of ``accumulate`` alone."""
    return bool(getattr(getattr(optimizer, "gradient_state", None), "sync_gradients", True))


def model_source(model: nn.Module) -> str:
    """Return where a model comes from, for messages: its checkpoint, or its class."""
    return getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__
