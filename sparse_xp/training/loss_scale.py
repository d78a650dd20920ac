"""What fp16 costs: the loss scale, and the steps that are skipped because gradients overflow.

The gradient scaler multiplies the loss, so that small gradients do not vanish. A step with infinite gradients is
skipped: it changes no weight, and halves the scale. It counts as a step all the same: schedules, masks and logs go on.
Skipped steps are counted on the device, and the count is read where the loop waits for the device anyway.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from sparse_xp.errors import UserError

if TYPE_CHECKING:
    from torch.amp.grad_scaler import GradScaler

    from sparse_xp.training.state import Run

#: 2^-24, the smallest number of fp16: about forty more steps were skipped than the scale could recover from
LOWEST_SCALE = 2.0**-24


def current_scale(scaler: GradScaler, device: torch.device) -> torch.Tensor:
    """Return the loss scale as a scalar on the device; ``scaler.get_scale`` would wait for the device."""
    return scaler.scale(torch.ones((), device=device))


@contextmanager
def skipped_counted(run: Run) -> Iterator[None]:
    """Make the update of a step in this context, and count it in ``run.skipped`` if the scaler skips it."""
    scaler = run.accelerator.scaler
    if scaler is None:
        yield
        return
    before = current_scale(scaler, run.accelerator.device)
    yield
    # A fused optimizer leaves out the step on the device, and nobody on the host knows: only the scale tells.
    dropped = current_scale(scaler, run.accelerator.device) < before
    run.skipped = dropped.int() if run.skipped is None else run.skipped + dropped


def settle(run: Run, began: float) -> dict[str, float]:
    """Wait for the device, and bring ``seconds`` and ``skipped`` of the progress up to date.

    ``began``: when the training began whose time has not been counted yet. Returns what fp16 adds to a line of the
    log; nothing in other precisions. Raises UserError if the scale has fallen so low that fp16 cannot go on.
    """
    progress, scaler = run.progress, run.accelerator.scaler
    if run.accelerator.device.type != "cpu":
        torch.accelerator.synchronize(run.accelerator.device)
    progress.seconds += time.perf_counter() - began
    if scaler is None:
        return {}
    if run.skipped is not None:
        progress.skipped, run.skipped = progress.skipped + int(run.skipped), None
    scale = float(scaler.get_scale())
    if scale < LOWEST_SCALE:
        raise UserError(skipped_message(run, f"even after the loss scale fell to {scale:.0e}"))
    return {"loss_scale": scale, "skipped": float(progress.skipped)}


def check_updated(run: Run) -> None:
    """Raise UserError if the scaler has skipped every step of a run: its model is the one that it began with."""
    if run.progress.step and run.progress.skipped == run.progress.step:
        raise UserError(skipped_message(run, "so that the model is as it was"))


def skipped_message(run: Run, consequence: str) -> str:
    """Return the message that fp16 does not work for a run."""
    progress, rate = run.progress, run.train.learning_rate
    return (
        f"train.precision=fp16: {progress.skipped} of {progress.step} steps were skipped because their gradients were "
        f"not finite, {consequence}. Write train.precision=bf16 or train.precision=fp32, or a lower learning rate "
        f"(train.learning_rate={rate / 10:g})."
    )
