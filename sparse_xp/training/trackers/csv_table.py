"""The curve of a run as ``metrics.csv``, which every program reads."""

from __future__ import annotations

import csv
import io
from typing import Any

from accelerate.tracking import GeneralTracker

from sparse_xp.files.writing import write_text
from sparse_xp.training.trackers.tracked_run import TrackedRun

#: the name of the file in the directory of a run
METRICS = "metrics.csv"


class CsvTable(GeneralTracker):  # type: ignore[misc]
    """A table with a line for every logged step and every evaluation, and a column for each number.

    A resumed run writes it anew, with the lines before the interruption.
    """

    name = "csv"
    requires_logging_directory = False

    def __init__(self, this: TrackedRun):
        super().__init__()
        self.path = this.directory / METRICS
        self.rows: list[dict[str, Any]] = []
        self.columns = ["step"]

    @property
    def tracker(self) -> CsvTable:
        """The table itself."""
        return self

    def start(self) -> None:
        """Write the table without lines."""
        write_text(self.path, lines_of(self.columns, [dict.fromkeys(self.columns, "step")]))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Store nothing: config.yaml has the configuration."""

    def complete(self) -> None:
        """Do nothing more."""

    def has(self, name: str, step: int) -> bool:
        """Return False: the table is new."""
        return False

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        """Add a line. New columns are put behind the others, and the table is written again."""
        row = {"step": step, **values}
        self.rows.append(row)
        new = [name for name in row if name not in self.columns]
        if new:
            self.columns += new
            write_text(self.path, lines_of(self.columns, [{name: name for name in self.columns}, *self.rows]))
        else:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(lines_of(self.columns, [row]))

    def summarize(self, values: dict[str, Any], step: int) -> None:
        """Write nothing: result.json has the values of the finished run."""

    def finish(self) -> None:
        """Close nothing: every line was written when it was logged."""


def lines_of(columns: list[str], rows: list[dict[str, Any]]) -> str:
    """Return ``rows`` as lines of CSV; a cell is empty where a row has no such number."""
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()
