"""Runs whose encoders lose heads, neurons or dimensions, step by step."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sparse_xp.clock import Clock
from sparse_xp.modifiers import Modifier, StructuredPruning
from sparse_xp.modifiers.modifier_list import ModifierList
from tests.encoders import BATCH, make_encoder
from tests.tiny import FakeContext, make_run

#: every run has a directory of its own
NUMBERS = count()


def attach_pruning(
    model: Any = None, others: dict[str, Modifier] | None = None, **fields: Any
) -> tuple[FakeContext, StructuredPruning]:
    """Return a run of 10 steps and its modifier, attached to a model with 4 layers of 2 heads and 16 neurons."""
    clock = Clock(5, 10)
    modifier = StructuredPruning(**{"final_sparsity": 0.5, "multiple": 4, "start": 0, "update_frequency": 0.0} | fields)
    modifiers = ModifierList({"sparsity": modifier, **(others or {})}, clock)
    paths = {"cache": Path("cache"), "directory": Path(f"run{next(NUMBERS)}")}
    this = make_run(5, 10, model=model or make_encoder("Bert"), modifier_list=modifiers, **paths)
    this.accelerator = SimpleNamespace(scaler=None, num_processes=1, main_process_first=nullcontext)
    modifier.attach(this)
    return this, modifier


def take_step(this: FakeContext, modifier: Modifier, seed: int = 0) -> None:
    """Make an optimizer step, with gradients and updates that would revive any pruned weight."""
    torch.manual_seed(seed)
    modifier.before_step(this)
    this.model.train()(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
    modifier.before_update(this)
    with torch.no_grad():
        for parameter in this.model.parameters():
            parameter.add_(0.01 * torch.ones_like(parameter))
    modifier.after_update(this)
    modifier.check(this)
    for parameter in this.model.parameters():
        parameter.grad = None
    this.progress.step += 1
