"""What there is of a sweep: by the files in the directories of its cells."""

from __future__ import annotations

import shlex
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from sparse_xp.console import say
from sparse_xp.errors import UserError, shortened
from sparse_xp.files import reading
from sparse_xp.run_directory import ERROR, state
from sparse_xp.sweep.cells import Plan

#: characters of an error in a list of cells
LONGEST_LINE = 400


def counts(plan: Plan) -> str:
    """``5 finished, 1 failed``."""
    found = list(plan.states.values())
    return ", ".join(f"{found.count(kind)} {kind}" for kind in dict.fromkeys(sorted(found))) or "no cells"


def tell(plan: Plan) -> None:
    """One line before it begins."""
    say(f"sweep {plan.name}: {len(plan.cells)} cells in {plan.place}: {counts(plan)}")


def conclude(plan: Plan, returns: list[JobReturn]) -> None:
    """Say what became of the cells. Raises UserError if one failed, after all have run."""
    plan.states = {cell.directory: state(plan.place / cell.directory, cell.config_hash) for cell in plan.cells}
    say(f"{plan.place}: {counts(plan)}. python -m sparse_xp.report {shlex.quote(str(plan.place))} makes the table.")
    bad = [cell for cell in plan.cells if plan.states[cell.directory] == "failed"]
    if bad:
        for cell in bad:  # each by itself: a long message is cut
            say(f"  {cell.directory}\n    {last_line(plan.place / cell.directory / ERROR)}")
        raise UserError(
            f"{len(bad)} of {len(plan.cells)} cells failed: {bad[0].directory}{' and others' * (len(bad) > 1)}. All of "
            f"it stands in their {ERROR}; the same command tries them again."
        )
    lost = [each for each in returns if each.status == JobStatus.FAILED]
    if lost and any(found != "finished" for found in plan.states.values()):
        _ = lost[0].return_value  # raises: it failed before it came to its own folder


def last_line(path: Path) -> str:
    """The last line of a traceback: the error itself, cut if it is long. A killed process may have left only a part."""
    with reading(path, "Move it away."):
        text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    return shortened(next((line for line in reversed(lines) if not line.startswith(" ")), "?"), LONGEST_LINE)
