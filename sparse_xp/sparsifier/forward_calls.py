"""The forward passes that a loss makes for a batch, recorded where the loss of a Trainer does not return them.

The losses of sentence-transformers call the model once for each text of a row, such as anchor and positive.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparse_xp.errors import UserError
from sparse_xp.sparsifier.models import unwrapped
from sparse_xp.sparsifier.outputs import logit_names, named_outputs


class Calls(list[Any]):
    """The inputs of several forward passes for one batch."""


@contextmanager
def recorded_calls(model: nn.Module) -> Iterator[list[tuple[Any, Any]]]:
    """Fill a list with the inputs and the outputs of each forward pass with gradients."""
    calls: list[tuple[Any, Any]] = []
    inputs: list[Any] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append(inputs_of_call(model, args, kwargs))

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: object) -> None:
        given = inputs.pop()
        if torch.is_grad_enabled():
            # A copy, because MatryoshkaLoss cuts embeddings in the dictionary itself.
            calls.append((given, dict(outputs) if type(outputs) is dict else outputs))

    hooks = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def inputs_of_call(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """Return what a model was called with as a batch: a mapping by name, or its only argument.

    A mapping is a copy, because modules of sentence-transformers write into theirs.
    """
    if len(args) == 1:
        [batch] = args
        return dict(batch) if isinstance(batch, Mapping) else batch if not kwargs else named(model, args, kwargs)
    return named(model, args, kwargs) if args else dict(kwargs)


def named(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments of a call by the names of the parameters of ``forward``."""
    names = inspect.signature(unwrapped(model).forward).parameters
    return {**dict(zip(names, args, strict=False)), **kwargs}


def as_one_batch(calls: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Return the inputs and the outputs of recorded forward passes as those of one batch.

    Several passes have their inputs as ``Calls``, and their logits joined. Raises UserError if there are none.
    """
    if not calls:
        raise UserError(
            "The recipe distils, and the loss makes no forward pass with gradients through the model it is given "
            "(losses that cache gradients do not). Take another loss, or teacher='disable'."
        )
    if len(calls) == 1:
        return calls[0]
    return Calls(inputs for inputs, _ in calls), joined_outputs([outputs for _, outputs in calls])


def joined_outputs(outputs: list[Any]) -> dict[str, Tensor] | list[Any]:
    """Return the logits of several forward passes as those of one: by name, concatenated by rows.

    Outputs without logits, for a distillation loss of one's own, stay a list. Raises UserError for outputs of several
    sizes.
    """
    if not all(isinstance(each, Mapping | Tensor) for each in outputs):
        return outputs
    by_name = [named_outputs(each) for each in outputs]
    names = logit_names(by_name[0])
    for name in names:
        sizes = list(dict.fromkeys(each[name].shape[-1] for each in by_name))
        if len(sizes) > 1:
            raise UserError(
                f"The loss calls the model with outputs cut to other sizes ({name}: {', '.join(map(str, sizes))}), as "
                "MatryoshkaLoss does, and a teacher's have one size. Take the loss that it wraps, or teacher='disable'."
            )
    return {name: torch.cat([each[name] for each in by_name]) for name in names} if names else outputs
