"""Show a run in a tracker: the curve of ``history.jsonl``, and at the end what the run promises (``summary.py``).

Whatever a tracker is, a resumed run leaves one curve in it: every point of ``history.jsonl`` once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.errors import UserError
from sparse_xp.history import History, tracked_values
from sparse_xp.result import Provenance, Result
from sparse_xp.settings import Log
from sparse_xp.training.trackers.tracked_run import SummaryTracker, TrackedRun

if TYPE_CHECKING:
    from accelerate import Accelerator

#: the modules that a tracker needs
NEEDED = {
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "trackio": ("trackio",),
    "csv": (),
    "none": (),
}


def check_installed(tracker: str) -> None:
    """Raise UserError if the tracker of ``log.tracker`` is not installed."""
    if missing := [name for name in NEEDED[tracker] if find_spec(name) is None]:
        extra = "wandb" if tracker == "wandb" else f"'sparse-xp[{tracker}]'"
        raise UserError(
            f"log={tracker}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: pip install "
            f"{extra}. Trackers that need nothing: log=csv (metrics.csv in the directory of the run), log=none."
        )


def start_tracker(accelerator: Accelerator, tracker_name: str, this: TrackedRun, history: History) -> None:
    """Open the tracker of a run on rank 0, give it what ``history`` has already, and what will come.

    ``accelerator`` closes the tracker (``end_training``).
    """
    if tracker_name == "none" or not accelerator.is_main_process:
        return
    tracker = make_tracker(tracker_name, this)
    tracker.start()
    accelerator.trackers.append(tracker)
    history.tracker = NewPoints(tracker)
    for line in history.read():
        history.tracker.log(tracked_values(line), line["step"])
    tracker.complete()


def tracked_run(
    log: Log, directory: Path, names: Sequence[str], config: dict[str, Any], recorded: Provenance
) -> TrackedRun:
    """Return what a tracker is told about a run.

    ``names``: of its task, model and recipe. ``config``: the whole configuration. ``recorded``: where the run comes
    from.
    """
    origin = {name: value for name, value in asdict(recorded).items() if name != "command"}
    return TrackedRun(
        directory=directory,
        project=log.project,
        group=log.group or directory.resolve().parent.name,
        tags=list(dict.fromkeys([*names, *log.tags])),
        job=log.job_type or ("sweep" if os.environ.get("WANDB_SWEEP_ID") else "train"),
        online=log.mode == "online",
        config=config | origin,
    )


def make_tracker(name: str, this: TrackedRun) -> SummaryTracker:
    """Return the tracker of ``log.tracker``, not yet open. Each is imported late, as it may not be installed."""
    if name == "wandb":
        from sparse_xp.training.trackers.wandb_run import WandbRun

        return WandbRun(this)
    if name == "tensorboard":
        from sparse_xp.training.trackers.tensorboard_run import TensorboardRun

        return TensorboardRun(this)
    if name == "mlflow":
        from sparse_xp.training.trackers.mlflow_run import MlflowRun

        return MlflowRun(this)
    if name == "trackio":
        from sparse_xp.training.trackers.trackio_run import TrackioRun

        return TrackioRun(this)
    from sparse_xp.training.trackers.csv_table import CsvTable

    return CsvTable(this)


class NewPoints:
    """Passes to ``tracker`` the numbers that it does not have from an earlier part of the run."""

    def __init__(self, tracker: SummaryTracker):
        self.tracker = tracker

    def log(self, values: dict[str, Any], step: int) -> None:
        """Log the numbers of a step that are new."""
        if new := {name: value for name, value in values.items() if not self.tracker.has(name, step)}:
            self.tracker.log(new, step=step)


def log_result(accelerator: Accelerator, result: Result, values: dict[str, Any], artifacts: bool) -> None:
    """Record the ``values`` of a finished run, and in W&B its row of the table.

    ``artifacts``: upload the deployment folder and the report to W&B, if it is online.
    """
    log_summary(accelerator, values, result.training.steps)
    for tracker in accelerator.trackers:
        if tracker.name == "wandb":
            tracker.upload(result, artifacts)


def log_summary(accelerator: Accelerator, values: dict[str, Any], step: int) -> None:
    """Record the values of a run that ended at ``step`` in its tracker."""
    for tracker in accelerator.trackers:
        tracker.summarize(values, step)
