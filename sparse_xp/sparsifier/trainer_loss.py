"""The loss of a micro-batch of a ``Trainer``, with the teacher's, which gets the weight that the task's has."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer

from sparse_xp.errors import UserError
from sparse_xp.sparsifier.forward_calls import Calls, as_one_batch, recorded_calls
from sparse_xp.sparsifier.outputs import is_target
from sparse_xp.sparsifier.sparsifier import Sparsifier


def loss_with_teacher(
    trainer: Trainer,
    sparsifier: Sparsifier,
    compute_loss: Callable[..., Tensor],
    model: nn.Module,
    inputs: dict[str, Any],
    **kwargs: Tensor | int | None,
) -> Tensor:
    """Return the loss of a micro-batch with that of the distillation. ``compute_loss``: that of the task."""
    targets = {name: value for name, value in inputs.items() if is_target(name)}
    share = share_of_step(trainer, inputs, kwargs.get("num_items_in_batch"))
    with recorded_calls(model) as calls:
        loss = compute_loss(model, inputs, **kwargs)
    batch, outputs = as_one_batch(calls)
    hidden = sparsifier.recipe.distilling_hidden
    if isinstance(batch, Calls) and hidden:
        raise UserError(
            f"{', '.join(hidden)} compares hidden layers of one forward pass, and the loss makes {len(batch)} for a "
            "batch. Compare the logits with Distillation() instead."
        )
    if isinstance(batch, Mapping):
        batch = targets | dict(batch)
    return sparsifier.loss(loss, outputs, batch, share=share)


def share_of_step(trainer: Trainer, inputs: Mapping[str, Any], items: Tensor | int | None) -> float:
    """Return the part of the step's loss that a micro-batch has, 1.0 where the ``Trainer`` divides by their number.

    ``items``: the number of labels in all micro-batches of the step.
    """
    if not normalizes_loss(trainer, items):
        return 1.0
    labels = inputs.get("labels")
    if items is None or labels is None:
        return 1 / trainer.current_gradient_accumulation_steps
    processes = trainer.accelerator.num_processes if trainer.args.average_tokens_across_devices else 1
    return float(labels.ne(-100).sum() * processes / items)


def normalizes_loss(trainer: Trainer, items: Tensor | int | None) -> bool:
    """Return whether the ``Trainer`` takes the loss of a micro-batch as divided by the ``items`` of the whole step.

    Otherwise it takes it as a mean over the micro-batch, and divides it by their number.
    """
    if trainer.loss_is_scaled_for_ga is not None:
        return bool(trainer.loss_is_scaled_for_ga)
    return trainer.compute_loss_func is not None or (trainer.model_accepts_loss_kwargs and items is not None)


def counts_items(model: nn.Module) -> bool:
    """Return whether a model divides its loss by ``num_items_in_batch``.

    Models of transformers hand that to ``loss_function``. BERT for classification, among others, accepts it too, but
    returns the mean over the micro-batch; the ``Trainer`` would then add up the means of all micro-batches.
    """
    forward = inspect.unwrap(type(model).forward)
    return not isinstance(model, PreTrainedModel) or "loss_function" in forward.__code__.co_names
