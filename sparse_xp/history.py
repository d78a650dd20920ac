"""Every logged step: a line of ``history.jsonl``, and the same numbers to the tracker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparse_xp.clock import Clock
from sparse_xp.files import write_text


class History:
    """Appends to ``path``, and gives the same numbers to ``tracker`` (an Accelerator, or None)."""

    def __init__(self, path: Path, every: int, tracker: Any = None, active: bool = True):
        self.path, self.every, self.tracker, self.active = path, every, tracker, active

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

    def rewind(self, step: int) -> None:
        """Forget the lines after ``step``: a run that continues from there will write them again."""
        if self.active and self.path.exists():
            lines = [line for line in self.read() if line["step"] <= step]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))

    def read(self) -> list[dict[str, Any]]:
        """All whole lines. A last line cut short by a crash is left out; it will be written again."""
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def _write(self, line: dict[str, Any], tracked: dict[str, Any]) -> None:
        if not self.active:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.tracker is not None:
            self.tracker.log(tracked, step=line["step"])
