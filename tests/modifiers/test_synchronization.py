"""What a modifier does in every step reads nothing from the device: on a GPU each read waits for all that was started.

The steps are made on the CPU. There the same operations run that would wait on a GPU, and PyTorch tells of each.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.amp.grad_scaler import GradScaler
from torch.utils._python_dispatch import TorchDispatchMode

from sparse_xp.errors import UserError
from sparse_xp.modifiers import MODIFIERS, Modifier, StructuredPruning
from sparse_xp.training.loss_scale import skipped_counted
from tests.encoders import BATCH, make_encoder
from tests.tiny import FakeContext, make_run

#: operations whose result depends on values, so that the host has to know them
READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")

#: kinds and their options for a run of 12 steps; masks change in steps 3 and 9 alone
RAMP = {"start": "3 steps", "end": "9 steps", "update_frequency": "6 steps"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "constant": ("ConstantPruning", {"min_sparsity": 0}),
    "magnitude": ("MagnitudePruning", RAMP | {"final_sparsity": 0.5}),
    "regrow": ("MagnitudePruning", RAMP | {"final_sparsity": 0.5, "regrow": True}),
    "movement": ("MovementPruning", RAMP | {"final_sparsity": 0.5}),
    "soft": ("SoftMovementPruning", RAMP | {"final_threshold": 0.49}),
    "acdc": ("ACDCPruning", {"compression_sparsity": 0.5, "start": "3 steps", "update_frequency": "6 steps"}),
    "structured": ("StructuredPruning", RAMP | {"final_sparsity": 0.5, "multiple": 4}),
    "second_order": ("StructuredPruning", RAMP | {"final_sparsity": 0.5, "multiple": 4, "score": "second_order"}),
    "layers": (
        "StructuredPruning",
        RAMP | {"final_sparsity": 0.5, "multiple": 4, "global_sparsity": True, "layers": True},
    ),
    "embedding": ("EmbeddingPruning", RAMP | {"final_sparsity": 0.5, "multiple": 1}),
    "rate": ("LearningRate", {"init_lr": 0.1, "final_lr": 0.0}),
    "decay": ("WeightDecay", {"weight_decay": 0.1}),
    "frozen": ("TrainableParams", {"params": ["re:.*bias"], "trainable": False}),
}


class Reads(TorchDispatchMode):
    """Writes down the operations that would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_truth = name in ("index", "index_put_") and any(
            each is not None and each.dtype == torch.bool for each in args[1]
        )
        if name in READS or by_truth:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def make_steps(kind: str, scaler: GradScaler | None, infinite: int = -1) -> tuple[dict[int, list[str]], Modifier, Any]:
    """Return what the hooks of each of 12 steps have read, the modifier and its run.

    In step ``infinite`` all gradients are.
    """
    name, fields = KINDS[kind]
    modifier = MODIFIERS[name](**fields)
    torch.manual_seed(0)
    model = make_encoder("Bert").train()
    run = make_run(4, 12, model=model)
    run.accelerator.scaler = scaler
    modifier.attach(run)
    run.optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    found = {}
    for step in range(12):
        run.progress.step = step
        reads = Reads()
        with reads:
            modifier.before_step(run)
        loss = model(**BATCH, labels=torch.tensor([0, 1])).loss
        (scaler.scale(loss) if scaler else loss).backward()
        if step == infinite:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(torch.inf)
        with reads:
            modifier.before_update(run)
        with skipped_counted(run):
            if scaler:
                scaler.step(run.optimizer)
                scaler.update()
            else:
                run.optimizer.step()
        run.optimizer.zero_grad()
        with reads:
            modifier.after_update(run)
        found[step] = reads.found
    return found, modifier, run


@pytest.mark.parametrize("scaled", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_changes_no_mask_reads_nothing(kind: str, scaled: bool) -> None:
    found, _, _ = make_steps(kind, GradScaler("cpu", init_scale=64.0) if scaled else None)
    if kind == "soft" and not scaled:  # Adam's own count of steps, which is in host memory, unless Adam is fused
        found = {step: [read for read in reads if read != "_local_scalar_dense"] for step, reads in found.items()}
    assert {step: reads for step, reads in found.items() if reads and step not in (3, 9)} == {}


def test_reads_are_seen() -> None:
    values = torch.tensor([1.0, 0.0])
    for read in (lambda: values.sum().item(), lambda: bool(values.any()), lambda: values[values > 0], values.nonzero):
        with Reads() as reads:
            read()
        assert reads.found


def learned(modifier: Any) -> list[torch.Tensor]:
    """What a modifier has gathered from gradients."""
    scores = getattr(modifier, "moved", None) or getattr(modifier, "scores", None)
    return list(scores.values()) if isinstance(scores, dict) else list(modifier.gate_scores.sums.values())


@pytest.mark.parametrize("kind", ["movement", "soft", "structured", "second_order", "layers", "embedding"])
def test_scores_are_those_of_the_steps_that_were_made(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An infinite step counts as a step, and adds nothing; the others add what they do without a scale."""
    monkeypatch.setitem(KINDS, kind, (KINDS[kind][0], KINDS[kind][1] | {"start": "10 steps", "end": "11 steps"}))
    _, plain, _ = make_steps(kind, None)
    _, scaled, run = make_steps(kind, GradScaler("cpu", init_scale=64.0))
    assert run.skipped == 0
    for expected, found in zip(learned(plain), learned(scaled), strict=True):
        torch.testing.assert_close(found, expected)
    _, skipped, run = make_steps(kind, GradScaler("cpu", init_scale=64.0), infinite=0)
    assert run.skipped == 1
    assert all(bool(values.isfinite().all()) for values in learned(skipped))


def removal_in_fp16(end: str) -> tuple[StructuredPruning, FakeContext]:
    """Structured pruning from step 1 to ``end``, attached to a run with a gradient scaler."""
    _, fields = KINDS["structured"]
    modifier = StructuredPruning(**fields | {"start": "1 step", "end": end, "update_frequency": "1 step"})
    run = make_run(4, 12, model=make_encoder("Bert").train(), optimizer=SimpleNamespace(param_groups=[], state={}))
    run.accelerator.scaler = GradScaler("cpu", init_scale=64.0)
    modifier.attach(run)
    return modifier, run


def test_scores_of_nothing_but_infinite_steps_choose_nothing() -> None:
    modifier, run = removal_in_fp16("2 steps")
    modifier.before_step(run)
    run.model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
    for parameter in run.model.parameters():
        parameter.grad.fill_(torch.nan)
    modifier.before_update(run)
    run.progress.step = 1
    modifier.before_step(run)  # the first update removes nothing yet
    run.progress.step = 2
    with pytest.raises(UserError, match="nothing is known of heads and neurons"):
        modifier.before_step(run)


def test_a_removal_that_scores_are_missing_for_is_made_up_for() -> None:
    modifier, run = removal_in_fp16("6 steps")
    sizes = []
    for step in range(8):
        run.progress.step = step
        modifier.before_step(run)
        run.model.zero_grad()
        run.model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
        if step < 4:
            for parameter in run.model.parameters():
                parameter.grad.fill_(torch.inf)
        modifier.before_update(run)
        sizes.append(modifier.current_sizes())
    assert sizes[4] == sizes[0]  # three updates had nothing to go by
    assert modifier.target_reached(run)
    assert sizes[-1] == modifier.final_sizes != sizes[0]
