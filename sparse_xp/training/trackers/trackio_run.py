"""A run in Trackio."""

from __future__ import annotations

import os
from typing import Any

from accelerate.tracking import TrackioTracker

from sparse_xp.training.trackers.tracked_run import TrackedRun, flatten, numbers_in, remember_run_id, run_id


class TrackioRun(TrackioTracker):  # type: ignore[misc]
    """A run in Trackio: in the database of ``TRACKIO_DIR``, by default one beside the runs of the sweep.

    A resumed run continues under its name. Points that the database has already are not logged again.
    """

    def __init__(self, this: TrackedRun):
        os.environ.setdefault("TRACKIO_DIR", str(this.directory.parent.resolve() / "trackio"))
        self.this, self.known = this, set[tuple[str, int]]()
        self.before = run_id(this, "trackio")
        super().__init__(
            this.project, name=this.name, group=this.group, resume="allow" if self.before else "never", embed=False,
            config={**flatten(this.config), "tags": ", ".join(this.tags), "job_type": this.job},
        )  # fmt: skip

    def start(self) -> None:
        """Open the run."""
        super().start()
        remember_run_id(self.this, "trackio", self.run.id)
        if self.before:
            from trackio.sqlite_storage import SQLiteStorage

            rows = SQLiteStorage.get_logs(self.this.project, self.this.name, run_id=self.run.id)
            self.known = {(name, row["step"]) for row in rows for name in row}

    def complete(self) -> None:
        """Do nothing more."""

    def has(self, name: str, step: int) -> bool:
        """Return whether the database has this point."""
        return (name, step) in self.known

    def summarize(self, values: dict[str, Any], step: int) -> None:
        """Log the numbers of ``values`` at the last step: Trackio has no other place for them."""
        self.log(numbers_in(values), step)
