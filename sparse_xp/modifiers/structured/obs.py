"""The removal of ``score=obs``: what the Linears that read groups are given, the errors, and the repair.

The tensor functions, and the source, are in ``functional/structured/obs.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparse_xp.errors import UserError
from sparse_xp.functional.cost_model import Size
from sparse_xp.functional.layers import find_encoders
from sparse_xp.functional.structured.blocks import Block, LayerMask, linear_at
from sparse_xp.functional.structured.obs import Elimination, InputMoments, eliminate_groups, in_float64
from sparse_xp.modifiers.gradient_scores import all_finite

if TYPE_CHECKING:
    from sparse_xp.modifiers.context import HookContext

#: training batches that tell, at each update, what the Linears are given
MOMENT_BATCHES = 8
#: the most rounds in which the neurons of a layer go
NEURON_ROUNDS = 64

Moments = Mapping[str, InputMoments]


class TokenFilter:
    """Leaves padding out of what the modules of an encoder are given.

    ``mask``: of the latest call [rows, tokens], True for tokens that are not padding; None for a call without one.
    """

    def __init__(self) -> None:
        self.mask: Tensor | None = None

    def read_mask(self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember the ``attention_mask`` of a call (a forward pre-hook of PyTorch)."""
        mask = kwargs.get("attention_mask")
        if mask is None and args:
            mask = inspect.signature(encoder.forward).bind_partial(*args).arguments.get("attention_mask")
        self.mask = mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None

    def real_tokens(self, inputs: Tensor) -> Tensor:
        """Return what a module is given for tokens that are not padding, [tokens, in].

        ``inputs``: [rows, tokens, in] or [rows * tokens, in]. Encoders that leave padding out themselves give the real
        tokens alone; these are returned as they are.
        """
        values = inputs.flatten(0, -2)
        return values if self.mask is None or len(values) != self.mask.numel() else values[self.mask.flatten()]


def input_moments(context: HookContext, blocks: Sequence[Block]) -> dict[str, InputMoments]:
    """Return the moments of what the Linears that read heads and neurons are given, by name of the Linear.

    Forward passes in evaluation mode on ``MOMENT_BATCHES`` batches. The rows depend on seed and step alone, so that
    every process has the same, and a run that continues as well.
    """
    model, training, tokens = context.model, context.model.training, TokenFilter()
    moments, hooks = {}, []
    for encoder in find_encoders(model).values():
        hooks.append(encoder.register_forward_pre_hook(tokens.read_mask, with_kwargs=True))
    for name in (name for block in blocks for name in (block.output, block.down)):
        module = linear_at(model, name)
        moments[name] = InputMoments.of_width(module.in_features, module.weight.device)
        hooks.append(module.register_forward_pre_hook(partial(_add_inputs, moments=moments[name], tokens=tokens)))
    model.eval()
    try:
        with torch.no_grad():
            for batch in context.gradient_batches(MOMENT_BATCHES, None, 0):
                context.task_loss(batch)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    return moments


def _add_inputs(module: nn.Module, args: tuple[Tensor, ...], moments: InputMoments, tokens: TokenFilter) -> None:
    """Add to ``moments`` what ``module`` is given. A forward pre-hook of PyTorch."""
    moments.add(tokens.real_tokens(args[0].detach()))


@dataclass(frozen=True)
class GroupReader:
    """A Linear that reads the groups of a layer.

    ``alive``: those that have not been removed [groups], bool. ``size``: inputs of a group. ``at_once``: how many of
    them go in one round.
    """

    name: str
    alive: Tensor
    size: int
    at_once: int

    @property
    def columns(self) -> Tensor:
        """The inputs of the groups that are left [in], bool."""
        return self.alive.repeat_interleave(self.size)


def group_readers(block: Block, mask: LayerMask, multiple: int) -> tuple[GroupReader, GroupReader]:
    """Return the Linears that read the heads and the neurons of a layer.

    Heads go one at a time. Neurons go ``multiple`` at a time, or more where ``NEURON_ROUNDS`` rounds are not enough.
    """
    heads, neurons = mask
    at_once = max(multiple, -(-len(neurons) // NEURON_ROUNDS))
    return GroupReader(block.output, heads, block.head_size, 1), GroupReader(block.down, neurons, 1, at_once)


def eliminate(module: nn.Linear, reader: GroupReader, moments: InputMoments, keep: int) -> Elimination:
    """Return the elimination of all groups of ``module`` but ``keep``, among the columns that it still has.

    A bias takes up what is constant in the inputs. Raises UserError if weights or inputs are not finite.
    """
    weight = in_float64(module.weight.detach()[:, reader.columns])
    second = moments.second(reader.columns, centred=module.bias is not None)
    if not all_finite(weight, second):
        raise UserError(f"StructuredPruning: {reader.name} or its inputs are not finite: training has diverged.")
    return eliminate_groups(weight, second, reader.size, keep, reader.at_once)


def relative_errors(
    model: nn.Module, blocks: Sequence[Block], masks: Mapping[str, LayerMask], moments: Moments, multiple: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return scores of heads [heads] and neurons [neurons] of each layer, float32, 0 for removed ones.

    A score is what the group adds to the error of its Linear when all go one after the other, as a part of the error
    that removing all of them comes to, so that layers can be compared. No group is worth less than those before it.
    """
    scores = {}
    for block in blocks:
        pair = []
        for reader in group_readers(block, masks[block.name], multiple):
            order, errors, _ = eliminate(linear_at(model, reader.name), reader, moments[reader.name], keep=0)
            shares = errors.cummax(0).values / errors.sum().clamp(min=torch.finfo(errors.dtype).tiny)
            numbers = reader.alive.nonzero().flatten()
            score = torch.zeros(len(reader.alive), device=numbers.device)
            score[numbers[order.to(numbers.device)]] = shares.to(score)
            pair.append(score)
        heads, neurons = pair
        scores[block.name] = heads, neurons
    return scores


def remove_with_repair(
    context: HookContext,
    blocks: Sequence[Block],
    masks: Mapping[str, LayerMask],
    moments: Moments,
    sizes: Sequence[Size],
    multiple: int,
) -> dict[str, LayerMask]:
    """Return ``masks`` that keep as many groups as ``sizes`` say; repair the weights of what reads them, in place."""
    kept = {}
    for block, size in zip(blocks, sizes, strict=True):
        pair = []
        for reader, keep in zip(group_readers(block, masks[block.name], multiple), size, strict=True):
            module, alive = linear_at(context.model, reader.name), reader.alive.clone()
            if keep < int(alive.sum()):
                order, _, weight = eliminate(module, reader, moments[reader.name], keep)
                alive[alive.nonzero().flatten()[order.to(alive.device)]] = False
                write_repaired(module, weight, reader.columns, moments[reader.name])
            pair.append(of_first_process(context, module, alive))
        heads, neurons = pair
        kept[block.name] = heads, neurons
    return kept


def of_first_process(context: HookContext, module: nn.Linear, alive: Tensor) -> Tensor:
    """Return ``alive`` [groups], bool, of rank 0, and copy the parameters of ``module`` from it.

    In a run all see the same batches, but on GPUs sums may differ in the last bit. In a loop of one's own they may see
    different ones.
    """
    if context.accelerator.num_processes == 1:
        return alive
    for parameter in (module.weight, module.bias):
        if parameter is not None:
            parameter.data.copy_(context.broadcast(parameter.data))
    return context.broadcast(alive.int()).bool()


def write_repaired(module: nn.Linear, weight: Tensor, columns: Tensor, moments: InputMoments) -> None:
    """Write a repaired ``weight`` [out, left] into the ``columns`` [in], bool, of ``module``, and correct its bias.

    A weight that is exactly zero stays so: other pruning has made it.
    """
    before = module.weight.detach()
    after = before.clone()
    after[:, columns] = weight.to(after)
    after.mul_(before != 0)
    if module.bias is not None:
        lost = in_float64((before - after)[:, columns]) @ moments.mean(columns)
        module.bias.data.add_(lost.to(module.bias))
    module.weight.data.copy_(after)
