"""``train.keep_checkpoints``: the model as it is during a run, as directories that load like the one at the end.

``checkpoints/epoch-2.5`` is what the run would deliver if it ended there, whether or not its recipe is fulfilled. The
state for resuming is apart from it (``checkpoint``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.clock import Clock
from sparse_xp.files.directories import atomic_directory
from sparse_xp.files.ownership import is_own, remove_own
from sparse_xp.run_directory import CHECKPOINTS, is_kept_model

if TYPE_CHECKING:
    from sparse_xp.training.state import Run

#: writes the model of a run into a directory
ModelWriter = Callable[["Run", Path], None]


def keep_model(run: Run, write: ModelWriter) -> None:
    """Write the model into ``checkpoints/``, and remove the oldest beyond ``train.keep_checkpoints``.

    The run itself is unchanged: what removes modules or cuts them at its end does so in a copy.
    """
    if not run.train.keep_checkpoints:
        return
    run.modifier_list.check(run)
    if run.accelerator.is_main_process:
        folder = run.directory / CHECKPOINTS
        with atomic_directory(folder / kept_name(run.clock, run.step), "model") as draft:
            write(finished_copy(run), draft)
        # Those of later steps, left by a run that was interrupted, neither count nor are removed.
        kept = {step: path for path in folder.iterdir() if (step := kept_step(run.clock, path)) <= run.step}
        ours = [kept[step] for step in sorted(kept) if step >= 0 and is_own(kept[step], "model")]
        for old in ours[: -run.train.keep_checkpoints]:
            remove_own(old, "model")
    run.accelerator.wait_for_everyone()


def kept_name(clock: Clock, step: int) -> str:
    """Return the name of the model after ``step`` steps: ``epoch-2.5``, or ``step-1234`` for an uneven number."""
    epoch = round(clock.epoch(step), 2)
    return f"epoch-{epoch:g}" if abs(epoch * clock.steps_per_epoch - step) < 1e-6 else f"step-{step}"


def kept_step(clock: Clock, path: Path) -> int:
    """Return the step after which the model at ``path`` was kept, -1 for anything else."""
    if not is_kept_model(path):
        return -1
    unit, number = path.name.split("-")
    return int(number) if unit == "step" else round(float(number) * clock.steps_per_epoch)


def finished_copy(run: Run) -> Run:
    """Return a run whose model is a copy, without what modifiers add to it for training.

    A model that is not quantized yet, or is to be after training, stays in floating point.
    """
    model, modifier_list = copy.deepcopy((run.model, run.modifier_list))
    modifier_list.modifiers = {
        name: modifier for name, modifier in modifier_list.modifiers.items() if not modifier.is_pending(run)
    }
    finished = replace(run, model=model, modifier_list=modifier_list)
    modifier_list.detach(finished)
    return finished
