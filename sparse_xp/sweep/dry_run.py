"""The dry run: the cells that a sweep would run, and their time and disk space, estimated from finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparse_xp.console import say
from sparse_xp.result import RESULT, Result, find_results
from sparse_xp.sweep.cells import Cell, SweepPlan
from sparse_xp.sweep.state import count_states
from sparse_xp.text import markdown


def show_dry_run(plan: SweepPlan) -> None:
    """Print every cell with its state, its teacher and an estimate, and what the rest of the sweep will take."""
    estimates = estimate(plan)
    rows = [
        {
            "job": str(cell.number),
            "cell": cell.name,
            "task": cell.task,
            "model": cell.model,
            "recipe": cell.recipe,
            "seed": str(cell.seed),
            "state": plan.states[cell.directory],
            "teacher": teacher_text(plan, cell),
            "time": estimates[cell.directory].time,
            "disk": estimates[cell.directory].disk,
        }
        for cell in plan.cells
    ]
    say(f"sweep {plan.name} in {plan.directory}, nothing is run\n\n{markdown(rows)}\n")
    say(f"{count_states(plan)}\n{total_text(plan, estimates)}")


def teacher_text(plan: SweepPlan, cell: Cell) -> str:
    """Return the teacher of a cell: the number of its job, or its directory if it is no job of this call."""
    if cell.teacher is None:
        return ""
    job = next((other for other in plan.cells if other.directory == cell.teacher), None)
    if job:
        return f"job {job.number}"
    return f"{'finished' if (plan.directory / cell.teacher / RESULT).exists() else 'made first'}: {cell.teacher}"


@dataclass
class Estimate:
    """Seconds of training and bytes of the run's directory; None if no finished run is like it."""

    seconds: float | None
    bytes: int | None

    @property
    def time(self) -> str:
        """The time as text, empty if unknown."""
        return "" if self.seconds is None else duration_text(self.seconds)

    @property
    def disk(self) -> str:
        """The size as text, empty if unknown."""
        return "" if self.bytes is None else f"{self.bytes / 1e6:,.0f} MB"


def estimate(plan: SweepPlan) -> dict[str, Estimate]:
    """Return what each cell will still take, by its directory: nothing for a finished one.

    Finished runs are looked for below the directory that holds the sweep's (``outputs``).
    """
    parent = plan.directory.parent
    finished = find_results([parent]) if parent.is_dir() else []
    sizes: dict[Path, int] = {}
    estimates = {}
    for cell in plan.cells:
        if plan.states[cell.directory] == "finished":
            estimates[cell.directory] = Estimate(0.0, 0)
        elif nearest := nearest_run(cell, finished):
            directory, result = nearest
            if directory not in sizes:
                sizes[directory] = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
            estimates[cell.directory] = Estimate(training_seconds(result, cell), sizes[directory])
        else:
            estimates[cell.directory] = Estimate(None, None)
    return estimates


def nearest_run(cell: Cell, finished: list[tuple[Path, Result]]) -> tuple[Path, Result] | None:
    """Return the finished run of the same task, model and profile that is most like a cell, with its directory."""
    alike = [
        (directory, result)
        for directory, result in finished
        if (result.task, result.model, result.profile) == (cell.task, cell.model, cell.profile)
    ]
    return max(
        alike,
        key=lambda run: (run[1].recipe == cell.recipe, bool(run[1].teacher) == bool(cell.teacher)),
        default=None,
    )


def training_seconds(result: Result, cell: Cell) -> float:
    """Return the seconds that a finished run took per row and epoch, times the rows and epochs of the cell."""
    training = result.training
    rows = min(cell.max_train_samples or training.train_rows_of, training.train_rows_of)
    return training.seconds / training.epochs / training.train_rows * cell.epochs * rows


def duration_text(seconds: float) -> str:
    """Return ``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def total_text(plan: SweepPlan, estimates: dict[str, Estimate]) -> str:
    """Return the sum over the unfinished cells, and what the sum leaves out."""
    left = [estimates[cell.directory] for cell in plan.cells if plan.states[cell.directory] != "finished"]
    known = [each for each in left if each.seconds is not None]
    sentences = []
    if known:
        seconds, size = sum(each.seconds or 0 for each in known), sum(each.bytes or 0 for each in known)
        sentences.append(
            f"About {duration_text(seconds)} of training one after the other (evaluation and export come on top) and "
            f"{size / 1e6:,.0f} MB for {len(known)} cells, going by finished runs of their task and model."
        )
    if unknown := len(left) - len(known):
        sentences.append(f"{unknown} cells: no finished run of their task and model to go by.")
    teachers = {cell.teacher for cell in plan.cells} - {None} - {cell.directory for cell in plan.cells}
    if missing := [name for name in teachers if not (plan.directory / str(name) / RESULT).exists()]:
        sentences.append(f"{len(missing)} teachers that are no cells are made first.")
    return " ".join(sentences) or "Nothing is left to do."
