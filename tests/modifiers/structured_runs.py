"""Runs whose encoders lose heads, neurons or dimensions, step by step."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sparse_xp.clock import Clock
from sparse_xp.functional.structured.blocks import sizes_of
from sparse_xp.functional.structured.config import removal_summary
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


def check_landing(this: FakeContext, modifier: StructuredPruning, together: bool) -> None:
    """Make 10 steps. Half of the model goes, nothing comes back, and its answers stay when that is cut out."""
    gone = []
    for number in range(10):
        before = {name: tuple(each.clone() for each in pair) for name, pair in modifier.masks.items()}
        take_step(this, modifier, number)
        gone.append(modifier.logs(this)["removed"])
        assert all(
            (now <= old).all() for n, pair in before.items() for now, old in zip(modifier.masks[n], pair, strict=True)
        )
    assert gone[0] == 0
    assert gone == sorted(gone)
    assert len(set(gone)) > 2
    assert 0.5 <= gone[-1] < 0.6
    assert modifier.target_reached(this)
    if not together:
        assert modifier.current_sizes() == [(1, 8)] * 4
    with torch.no_grad():
        logits = this.model.eval()(**BATCH).logits
        sizes = modifier.current_sizes()
        modifier.detach(this)
        torch.testing.assert_close(this.model(**BATCH).logits, logits, atol=1e-5, rtol=0)
    assert sizes_of(this.model) == sizes
    share = removal_summary(this.model)
    assert share is not None
    assert abs(share.share - gone[-1]) < 1e-6
    modifier.check(this)
