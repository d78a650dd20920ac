"""A run in TensorBoard."""

from __future__ import annotations

from typing import Any

import yaml
from accelerate.tracking import TensorBoardTracker

from sparse_xp.training.trackers.tracked_run import TrackedRun, flatten, numbers_in


class TensorboardRun(TensorBoardTracker):  # type: ignore[misc]
    """A run in the event files of TensorBoard, in the directory of the run.

    A resumed run writes its whole curve into a new file, and the files of earlier parts are removed. ``purge_step``
    hides their points from a TensorBoard that is open.
    """

    def __init__(self, this: TrackedRun):
        self.this, self.folder = this, this.directory / this.project
        for file in self.folder.glob("events.out.tfevents.*"):
            file.unlink()
        super().__init__(this.project, this.directory, purge_step=0)

    def start(self) -> None:
        """Open the file, and write the configuration as text."""
        super().start()
        self.writer.add_text("config", f"```yaml\n{yaml.safe_dump(self.this.config, sort_keys=False)}```")

    def complete(self) -> None:
        """Do nothing more."""

    def has(self, name: str, step: int) -> bool:
        """Return False: the file is new."""
        return False

    def summarize(self, values: dict[str, Any], step: int) -> None:
        """Write the page of hyperparameters: the configuration, the words of ``values``, and its numbers as metrics."""
        numbers = numbers_in(values)
        words = {name: value for name, value in values.items() if name not in numbers}
        self.writer.add_hparams(flatten(self.this.config) | words, numbers, run_name=".", global_step=step)
        self.writer.flush()
