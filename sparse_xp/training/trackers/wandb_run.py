"""A run in Weights & Biases."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from accelerate.tracking import WandBTracker

from sparse_xp.result import Result, result_row
from sparse_xp.training.trackers.tracked_run import TrackedRun, remember_run_id, run_id

#: what a W&B agent tells the run that it starts; a teacher that is trained on the way is none of its runs
OF_AGENT = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")


class WandbRun(WandBTracker):  # type: ignore[misc]
    """A run in W&B, offline or online. A resumed run keeps its id.

    Offline, W&B writes a file for each part of a resumed run and cannot continue one: the last file gets the whole
    curve again, and those of earlier parts are removed. Online the server has the steps up to the interruption.
    """

    def __init__(self, this: TrackedRun):
        os.environ.setdefault("WANDB_SILENT", "true")
        self.this = this
        identity = os.environ.get("WANDB_RUN_ID") if this.job != "teacher" else None
        identity = identity or run_id(this, "wandb") or os.urandom(8).hex()
        remember_run_id(this, "wandb", identity)
        self.superseded: list[Path] = []
        if not this.online:
            self.superseded = sorted((this.directory / "wandb").glob(f"offline-run-*-{identity}"))
        super().__init__(
            this.project, mode="online" if this.online else "offline", id=identity, name=this.name, group=this.group,
            tags=this.tags, job_type=this.job, dir=str(this.directory), config=this.config,
            resume="allow" if this.online else None,
        )  # fmt: skip

    def start(self) -> None:
        """Open the run, as one of a sweep if an agent started this command for it."""
        with without_agent() if self.this.job == "teacher" else nullcontext():
            super().start()

    def has(self, name: str, step: int) -> bool:
        """Return whether the server has all of a step; a new file has nothing."""
        return self.this.online and step < self.run.starting_step

    def complete(self) -> None:
        """Remove the files of earlier parts of the run: the one that is open has all that they have."""
        current = Path(self.run.dir).parent  # W&B names it by the second and the id
        for directory in self.superseded:
            if directory.resolve() != current.resolve():
                shutil.rmtree(directory, ignore_errors=True)

    def summarize(self, values: dict[str, Any], step: int) -> None:
        """Write ``values`` into the summary, which tables and sweeps of W&B read."""
        self.run.summary.update(values)

    def upload(self, result: Result, artifacts: bool) -> None:
        """Log the row of the table; when online and asked for ``artifacts``, also the deployment and the report."""
        import wandb

        line, directory = result_row(result), self.this.directory
        self.run.log({"result": wandb.Table(columns=list(line), data=[list(line.values())])})
        if artifacts and self.this.online:
            artifact = wandb.Artifact(f"deployment-{self.run.id}", type="model")
            artifact.add_dir(str(directory / "deployment"))
            artifact.add_file(str(directory / "report.md"))
            self.run.log_artifact(artifact)


@contextmanager
def without_agent() -> Iterator[None]:
    """Hide from W&B, within the block, that an agent started this command."""
    hidden = {name: os.environ.pop(name) for name in OF_AGENT if name in os.environ}
    try:
        yield
    finally:
        os.environ |= hidden
