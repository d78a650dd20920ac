"""Pruning in simulation: real models, gradients and AdamW, and as much of a run as a modifier looks at."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sparse_xp.modifiers.gradual_pruning import GradualPruning
from sparse_xp.modifiers.pruning import Pruning
from tests.tiny import make_bert, make_run


def bert_run(steps_per_epoch: int, total_steps: int, seed: int = 0) -> Any:
    model = make_bert(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    return make_run(steps_per_epoch, total_steps, model=model, optimizer=optimizer)


def matrix_run(weight: Tensor, steps_per_epoch: int = 1, total_steps: int = 1) -> Any:
    """A run over one matrix, ``weight``."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight)
    return make_run(steps_per_epoch, total_steps, model=layer)


def simulate(run: Any, modifier: Pruning, first: int = 0) -> Iterator[int]:
    """Train as the loop does, from step ``first``; yields each step's number after its update."""
    for step in range(first, run.clock.total_steps):
        run.progress.step = step
        modifier.before_step(run)
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(5, 20, (4, 6), generator=generator)
        run.model(input_ids=rows, labels=rows[:, 0] % 2).loss.backward()
        modifier.before_update(run)
        run.optimizer.step()
        run.optimizer.zero_grad()
        modifier.after_update(run)
        yield step


def updates(run: Any, modifier: GradualPruning) -> list[int]:
    """The steps at which the masks are made anew, in a run that trains nothing."""
    modifier.attach(run)
    found, before = [], modifier.masks
    for step in range(run.clock.total_steps):
        run.progress.step = step
        modifier.before_step(run)
        if modifier.masks is not before:
            found.append(step)
            before = modifier.masks
    return found


def num_zeros(modifier: Pruning) -> dict[int, set[int]]:
    """By size of tensor, the numbers of zeros in the tensors of that size."""
    found: dict[int, set[int]] = {}
    for weight in modifier.targets.values():
        found.setdefault(weight.numel(), set()).add(int((weight == 0).sum()))
    return found


def through_a_file(state: Any) -> Any:
    """What a checkpoint gives back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
