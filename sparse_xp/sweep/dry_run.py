"""The dry run: what a sweep would do, and what that would take, going by runs that are finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.console import say
from sparse_xp.sweep.cells import Cell, Plan
from sparse_xp.sweep.state import counts

if TYPE_CHECKING:
    from sparse_xp.result import Result


def show(plan: Plan) -> None:
    """The dry run: every cell, what there is of it, who teaches it, and what the rest will take."""
    from sparse_xp.text import markdown

    guesses = estimate(plan)

    rows = [
        {
            "job": str(cell.number),
            "cell": cell.name,
            "task": cell.task,
            "model": cell.model,
            "recipe": cell.recipe,
            "seed": str(cell.seed),
            "state": plan.states[cell.directory],
            "teacher": teacher_of(plan, cell),
            "time": guesses[cell.directory].time,
            "disk": guesses[cell.directory].disk,
        }
        for cell in plan.cells
    ]
    say(f"sweep {plan.name} in {plan.place}, nothing is run\n\n{markdown(rows)}\n")
    say(f"{counts(plan)}\n{total(plan, guesses)}")


def teacher_of(plan: Plan, cell: Cell) -> str:
    """The teacher as the dry run shows it."""
    if cell.teacher is None:
        return ""
    own = next((other for other in plan.cells if other.directory == cell.teacher), None)
    if own:
        return f"job {own.number}"
    return f"{'finished' if (plan.place / cell.teacher / 'result.json').exists() else 'made first'}: {cell.teacher}"


@dataclass
class Guess:
    """Seconds of training and bytes of the run's directory; None where no finished run is like it."""

    seconds: float | None
    bytes: int | None

    @property
    def time(self) -> str:
        """In words."""
        return "" if self.seconds is None else hours(self.seconds)

    @property
    def disk(self) -> str:
        """In words."""
        return "" if self.bytes is None else f"{self.bytes / 1e6:,.0f} MB"


def estimate(plan: Plan) -> dict[str, Guess]:
    """For each cell that is not finished, by the finished run of its task and model that is most like it.

    Looked for beside the sweep's own directory too (``outputs``). A finished cell takes nothing more.
    """
    from sparse_xp.report.run_report import find_with_places

    done = find_with_places([plan.place.parent]) if plan.place.parent.is_dir() else []
    sizes: dict[Path, int] = {}
    found = {}
    for cell in plan.cells:
        if plan.states[cell.directory] == "finished":
            found[cell.directory] = Guess(0.0, 0)
            continue
        alike = [(place, run) for place, run in done if like(run, cell)]
        if not alike:
            found[cell.directory] = Guess(None, None)
            continue
        place, nearest = max(
            alike, key=lambda pair: (pair[1].recipe == cell.recipe, bool(pair[1].teacher) == bool(cell.teacher))
        )
        if place not in sizes:
            sizes[place] = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        found[cell.directory] = Guess(seconds(nearest, cell), sizes[place])
    return found


def like(run: Result, cell: Cell) -> bool:
    """Whether a finished run says something about a cell."""
    return (run.task, run.model, run.profile) == (cell.task, cell.model, cell.profile)


def seconds(run: Result, cell: Cell) -> float:
    """Seconds of training: those of ``run`` for an epoch and a row, for the epochs and rows of the cell."""
    trained = run.training
    rows = min(cell.max_train_samples or trained.train_rows_of, trained.train_rows_of)
    return trained.seconds / trained.epochs / trained.train_rows * cell.epochs * rows


def hours(amount: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h``."""
    if amount < 60:
        return f"{amount:.0f} s"
    return f"{amount / 60:.0f} min" if amount < 5400 else f"{amount / 3600:.1f} h"


def total(plan: Plan, guesses: dict[str, Guess]) -> str:
    """The sum in a sentence, and what it does not know."""
    left = [guesses[cell.directory] for cell in plan.cells if plan.states[cell.directory] != "finished"]
    known = [guess for guess in left if guess.seconds is not None]
    parts = []
    if known:
        time, space = sum(guess.seconds or 0 for guess in known), sum(guess.bytes or 0 for guess in known)
        parts.append(
            f"About {hours(time)} of training one after the other (evaluation and export come on top) and "
            f"{space / 1e6:,.0f} MB for {len(known)} cells, going by finished runs of their task and model."
        )
    if unknown := len(left) - len(known):
        parts.append(f"{unknown} cells: no finished run of their task and model to go by.")
    made = {cell.teacher for cell in plan.cells} - {None} - {cell.directory for cell in plan.cells}
    if missing := [name for name in made if not (plan.place / str(name) / "result.json").exists()]:
        parts.append(f"{len(missing)} teachers that are no cells are made first.")
    return " ".join(parts) or "Nothing is left to do."
