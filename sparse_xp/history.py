"""``history.jsonl``: a line for every logged step and every evaluation; a tracker gets the same numbers.

The loop writes it (``History``); reports, pictures of recipes and ``sparse_xp.export`` read it (``read_history``).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.files.json_text import restore_numbers, to_json
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.writing import write_text


def read_history(path: Path, least: int = 1) -> list[dict[str, Any]]:
    """Return all complete lines. A last line cut short by a crash is left out; it will be written again.

    Raises UserError for a file that is missing or damaged, or has fewer than ``least`` lines.
    """
    with explain_read_errors(path, f"Restore it, or move {path.parent} away: the same command makes the run anew."):
        texts = path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines = [restore_numbers(json.loads(text)) for text in texts if text.endswith("\n")]
        for line in lines:
            check_line(line)
        if len(lines) < least:
            raise ValueError(f"it has {len(lines)} of {least} lines" if lines else "it has no whole line")
        return lines


def check_line(line: dict[str, Any]) -> None:
    """Raise ValueError or TypeError for a line that is neither a training step nor an evaluation."""
    if not {"step", "epoch"} <= line.keys() or not ("loss" in line or {"metrics", "valid"} <= line.keys()):
        raise ValueError(f"a line has only {', '.join(line) or 'nothing'}")
    numbers = [line["step"], line["epoch"], *([line["loss"]] if "loss" in line else line["metrics"].values())]
    if not isinstance(line["step"], int) or not all(isinstance(number, int | float) for number in numbers):
        raise TypeError(f"the line of step {line['step']!r:.20} has a value that is no number")


def tracked_values(line: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a line that a tracker gets; those of an evaluation are ``eval/NAME``."""
    if "metrics" in line:
        return {f"eval/{name}": value for name, value in line["metrics"].items()}
    return {name: value for name, value in line.items() if name != "step"}


class Tracker(Protocol):
    """What ``History`` needs of a tracker."""

    def log(self, values: dict[str, Any], step: int) -> None:
        """Log numbers of a step."""


class History:
    """Appends to ``path``, and gives the same numbers to ``tracker``, if there is one.

    ``every``: the number of steps between two logged ones. ``active``: False on all ranks but the first: they write
    nothing. ``lines``: how many have been written.
    """

    def __init__(self, path: Path, every: int, tracker: Tracker | None = None, active: bool = True):
        self.path, self.every, self.tracker, self.active = path, every, tracker, active
        self.lines = 0

    def is_due(self, step: int, total: int) -> bool:
        """Return whether to log this step: the first, every n-th and the last of ``total`` are logged."""
        return step == 1 or step % self.every == 0 or step == total

    def log_step(
        self, step: int, clock: Clock, loss: float, norm: float, modifier_logs: dict[str, float]
    ) -> dict[str, Any]:
        """Log a training step. ``norm``: of the unclipped gradient. ``modifier_logs``: what the modifiers report."""
        line = {"step": step, "epoch": clock.epoch(step), "loss": loss, "grad_norm": norm, **modifier_logs}
        self._write(line)
        return line

    def log_evaluation(self, step: int, clock: Clock, metrics: dict[str, float], valid: bool) -> dict[str, Any]:
        """Log an evaluation. ``valid``: whether the model satisfied the recipe at this step."""
        line = {"step": step, "epoch": clock.epoch(step), "metrics": metrics, "valid": valid}
        self._write(line)
        return line

    def rewind(self, step: int, lines: int = 0) -> None:
        """Remove what was logged after ``step``: a run that continues from there will log it again.

        ``lines``: how many there were at that step. Raises UserError if some of them are missing.
        """
        if not self.active or not (lines or os.path.lexists(self.path)):
            return
        earlier = [line for line in read_history(self.path, lines) if line["step"] <= step] if step else []
        if len(earlier) < lines:
            raise UserError(
                f"{self.path} is damaged (it has {len(earlier)} of the {lines} lines up to step {step}). Restore it, "
                f"or move {self.path.parent} away: the same command makes the run anew."
            )
        write_text(self.path, "".join(to_json(line) + "\n" for line in earlier))
        self.lines = len(earlier)

    def read(self) -> list[dict[str, Any]]:
        """Return all complete lines; none if nothing was logged yet."""
        return read_history(self.path, 0) if os.path.lexists(self.path) else []

    def sync(self) -> None:
        """Flush what was logged to the disk: a checkpoint is about to record the number of lines."""
        if self.active and self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def _write(self, line: dict[str, Any]) -> None:
        """Append a line to the file, and give its numbers to the tracker."""
        if not self.active:
            return
        with self.path.open("a") as file:
            file.write(to_json(line) + "\n")
        self.lines += 1
        if self.tracker is not None:
            self.tracker.log(tracked_values(line), step=line["step"])
