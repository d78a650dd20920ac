"""The state of all cells of a sweep, printed before and after it runs, from the files in their directories."""

from __future__ import annotations

import shlex
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from sparse_xp.console import say
from sparse_xp.errors import UserError, shortened
from sparse_xp.files.locks import file_lock
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.run_directory import ERROR, remove_temporary_files, run_state
from sparse_xp.sweep.cells import SweepPlan

#: characters of an error in a list of cells
LONGEST_LINE = 400


def count_states(plan: SweepPlan) -> str:
    """Return the cells by state: ``5 finished, 1 failed``."""
    states = list(plan.states.values())
    return ", ".join(f"{states.count(name)} {name}" for name in sorted(set(states))) or "no cells"


def announce(plan: SweepPlan) -> None:
    """Print one line before the cells are launched."""
    say(f"sweep {plan.name}: {len(plan.cells)} cells in {plan.directory}: {count_states(plan)}")


def clear_finished(plan: SweepPlan) -> None:
    """Remove what a process that was killed between its result and its clean-up has left in finished cells."""
    for cell in plan.cells:
        if plan.states[cell.directory] == "finished":
            with file_lock(plan.directory / cell.directory):
                remove_temporary_files(plan.directory / cell.directory)


def summarize(plan: SweepPlan, returns: list[JobReturn]) -> None:
    """Update and print the states after all cells have run.

    Raises UserError if a cell failed; what the launcher returned as failed raises its own error, if it did not come so
    far as to write ``error.txt``.
    """
    plan.states = {cell.directory: run_state(plan.directory / cell.directory, cell.config_hash) for cell in plan.cells}
    command = f"python -m sparse_xp.report {shlex.quote(str(plan.directory))}"
    say(f"{plan.directory}: {count_states(plan)}. {command} makes the table.")
    failed = [cell for cell in plan.cells if plan.states[cell.directory] == "failed"]
    if failed:
        for cell in failed:  # one message each: a long message would be cut
            say(f"  {cell.directory}\n    {last_line(plan.directory / cell.directory / ERROR)}")
        raise UserError(
            f"{len(failed)} of {len(plan.cells)} cells failed: {failed[0].directory}{' and others' * (len(failed) > 1)}"
            f". All of it stands in their {ERROR}; the same command tries them again."
        )
    lost = [job for job in returns if job.status == JobStatus.FAILED]
    if lost and any(status != "finished" for status in plan.states.values()):
        _ = lost[0].return_value  # raises what the job raised


def last_line(path: Path) -> str:
    """Return the last line of a traceback, the error itself, cut if it is long.

    A killed process may have left only a part of it. Raises UserError if the file cannot be read.
    """
    with explain_read_errors(path, "Move it away."):
        text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    return shortened(next((line for line in reversed(lines) if not line.startswith(" ")), "?"), LONGEST_LINE)
