"""The model inside of what ``torch.compile`` and distributed training wrap around it."""

from __future__ import annotations

from typing import cast

from torch import nn
from torch.nn.parameter import is_lazy

from sparse_xp.errors import UserError


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model itself, without ``torch.compile``, ``DistributedDataParallel`` and ``DataParallel`` around it.

    Its weights are those of ``model``.
    """
    from accelerate.utils import extract_model_from_parallel

    inner = cast(nn.Module, extract_model_from_parallel(model, keep_torch_compile=False))
    return model if inner is model else unwrap(inner)


def check_values(model: nn.Module) -> None:
    """Raise UserError for a model with weights that have no values: on the device meta, or lazy and not yet used."""
    for name, weight in model.named_parameters():
        if is_lazy(weight):
            raise UserError(f"{name} of the model has no values yet, as it is lazy. Call the model on a batch first.")
        if weight.is_meta:
            raise UserError(
                f"{name} of the model has no values: it is on the device meta. Load the weights, or build the model on "
                "another device."
            )


def check_own_weights(model: nn.Module) -> None:
    """Raise UserError for a model with weights of ``torch.nn.utils.prune``, whose zeros are in masks beside them."""
    for name, module in model.named_modules():
        for weight in (each.removesuffix("_orig") for each in module._parameters if each.endswith("_orig")):
            if f"{weight}_mask" in module._buffers:
                raise UserError(
                    f"{name}.{weight} is pruned by torch.nn.utils.prune, which keeps its zeros in a mask. Put them "
                    f"into the weights first: torch.nn.utils.prune.remove(module, {weight!r})."
                )
