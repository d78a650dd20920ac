"""Every logged step: a line of ``history.jsonl``, and the same numbers to the tracker."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.writing import write_text


def read_history(path: Path, least: int = 1) -> list[dict[str, Any]]:
    """All whole lines. A last line cut short by a crash is left out; it will be written again.

    Raises UserError for a file that is missing or damaged, or has fewer than the ``least`` lines.
    """
    with explain_read_errors(path, f"Restore it, or move {path.parent} away: the same command makes the run anew."):
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(True) if line.endswith("\n")]
        for line in found:
            if not {"step", "epoch"} <= line.keys() or not ("loss" in line or {"metrics", "valid"} <= line.keys()):
                raise ValueError(f"a line has only {', '.join(line) or 'nothing'}")
            numbers = [line["step"], line["epoch"], *([line["loss"]] if "loss" in line else line["metrics"].values())]
            if not isinstance(line["step"], int) or not all(isinstance(number, int | float) for number in numbers):
                raise TypeError(f"the line of step {line['step']!r:.20} has a value that is no number")
        if len(found) < least:
            raise ValueError(f"it has {len(found)} of {least} lines" if found else "it has no whole line")
        return found


class History:
    """Appends to ``path``, and gives the same numbers to ``tracker`` (an Accelerator, or None)."""

    def __init__(self, path: Path, every: int, tracker: Any = None, active: bool = True):
        self.path, self.every, self.tracker, self.active = path, every, tracker, active
        self.lines = 0

    def due(self, step: int, total: int) -> bool:
        """Whether this step is to be logged: the first, every n-th and the last."""
        return step == 1 or step % self.every == 0 or step == total

    def log(self, step: int, clock: Clock, loss: float, norm: float, more: dict[str, float]) -> dict[str, Any]:
        """A training step: its loss, the norm of its gradient before clipping, and what the modifiers report."""
        line = {"step": step, "epoch": clock.epoch(step), "loss": loss, "grad_norm": norm, **more}
        self._write(line, {name: value for name, value in line.items() if name != "step"})
        return line

    def evaluation(self, step: int, clock: Clock, metrics: dict[str, float], valid: bool) -> dict[str, Any]:
        """An evaluation; ``valid`` says whether the model satisfied the recipe then."""
        line = {"step": step, "epoch": clock.epoch(step), "metrics": metrics, "valid": valid}
        self._write(line, {f"eval/{name}": value for name, value in metrics.items()})
        return line

    def rewind(self, step: int, lines: int = 0) -> None:
        """Forget what was logged after ``step``: a run that continues from there will log it again.

        Raises UserError if the ``lines`` that were there at that step are not.
        """
        if not self.active or not (lines or os.path.lexists(self.path)):
            return
        kept = [line for line in read_history(self.path, lines) if line["step"] <= step] if step else []
        if len(kept) < lines:
            raise UserError(
                f"{self.path} is damaged (it has {len(kept)} of the {lines} lines up to step {step}). Restore it, or "
                f"move {self.path.parent} away: the same command makes the run anew."
            )
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.lines = len(kept)

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; none if nothing was logged yet."""
        return read_history(self.path, 0) if os.path.lexists(self.path) else []

    def sync(self) -> None:
        """Have what was logged on the disk."""
        if self.active and self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def _write(self, line: dict[str, Any], tracked: dict[str, Any]) -> None:
        if not self.active:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.lines += 1
        if self.tracker is not None:
            self.tracker.log(tracked, step=line["step"])
