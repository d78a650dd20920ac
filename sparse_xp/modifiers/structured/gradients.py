"""dL/dg of one step, for gates g = 1 on heads, neurons and layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparse_xp.errors import UserError
from sparse_xp.functional.layers import LayerGate
from sparse_xp.functional.structured.blocks import Block, linear_at
from sparse_xp.functional.structured.scores import gate_gradients

if TYPE_CHECKING:
    from sparse_xp.modifiers.context import Devices, HookContext

#: training batches whose outputs are scored for an update
BATCHES = 8


def group_gradients(model: nn.Module, blocks: Sequence[Block], score: str) -> dict[str, Tensor]:
    """Return dL/dg of heads [heads] and neurons [neurons] by name of the Linear that reads them.

    Raises UserError for a frozen Linear; ``score`` is for the message.
    """
    gradients = {}
    for block in blocks:
        for name, size in ((block.output, block.head_size), (block.down, 1)):
            weight = linear_at(model, name).weight
            if weight.grad is None:
                raise UserError(
                    f"StructuredPruning: {name} does not train, so that score={score} knows nothing of what it reads. "
                    "Let it train, or take score=magnitude."
                )
            gradients[name] = gate_gradients(weight, weight.grad, size)
    return gradients


def output_gradients(
    context: HookContext, blocks: Sequence[Block], gates: Mapping[str, LayerGate], score: str
) -> Iterator[dict[str, Tensor]]:
    """Yield dL/dg of heads, neurons and layers for each of ``BATCHES``, where L is ``context.task_loss``.

    The model is in evaluation mode. The rows depend on seed and step alone, so that every process has the same.
    """
    model, training = context.model, context.model.training
    model.eval()
    for batch in context.gradient_batches(BATCHES, None, 0):
        with torch.enable_grad():
            context.task_loss(batch).backward()
        yield group_gradients(model, blocks, score) | layer_gradients(gates, context.accelerator)
        model.zero_grad(set_to_none=True)
    model.train(training)


def layer_gradients(gates: Mapping[str, LayerGate], accelerator: Devices) -> dict[str, Tensor]:
    """Return dL/dg of layers, scalars by name of the layer, and clear them; only gates that track a gradient."""
    gradients = {}
    for name, gate in gates.items():
        if gate.tracks_gradient and gate.value.grad is not None:
            gradient, gate.value.grad = gate.value.grad, None
            # The gates are no part of the module that DDP wraps, so their gradients are averaged here.
            gradients[name] = accelerator.reduce(gradient, "mean") if accelerator.num_processes > 1 else gradient
    return gradients
