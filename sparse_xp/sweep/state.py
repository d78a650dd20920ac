"""What there is of a sweep: by the files in the directories of its cells."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml
from hydra.core.utils import JobReturn, JobStatus

from sparse_xp.console import say
from sparse_xp.errors import UserError
from sparse_xp.files import write_text
from sparse_xp.sweep.cells import Plan

ERROR = "error.txt"


def state(directory: Path, config_hash: str) -> str:
    """``finished``, ``failed``, ``interrupted``, ``to do``; or ``foreign``: there is a run of another configuration."""
    stored = directory / "config.yaml"
    begun = any((directory / name).exists() for name in ("result.json", "checkpoints", "best", "history.jsonl"))
    if stored.exists() and begun and yaml.safe_load(stored.read_text(encoding="utf-8"))["config_hash"] != config_hash:
        return "foreign"
    if (directory / "result.json").exists():
        return "finished"
    if (directory / ERROR).exists():
        return "failed"
    return "interrupted" if begun else "to do"


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
        lines = [f"  {cell.directory}\n    {last_line(plan.place / cell.directory / ERROR)}" for cell in bad]
        raise UserError(
            f"{len(bad)} of {len(plan.cells)} cells failed (all of it stands in their {ERROR}; the same command tries "
            "them again):\n" + "\n".join(lines)
        )
    if lost := [each for each in returns if each.status == JobStatus.FAILED]:
        _ = lost[0].return_value  # raises: it failed before it came to its own folder


def write_error(directory: Path, trace: str, command: str) -> None:
    """Record in its own folder that a cell failed."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / ERROR, f"{command}\n\n{trace}")


def last_line(path: Path) -> str:
    """The last line of a traceback: the error itself."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith(" ")), "?")
