"""The part ``tables``: real runs at the recipes' own epochs, several side by side on one GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.cells import Cell, make_cells, teacher_of
from benchmarks.gpu.processes import ENDED, Job, run_all
from benchmarks.gpu.settings import Settings

REPORT = "tables.json"
#: the rate of one run at which a cell is begun if it can end in time: an upper bound, as too late is better than never
STEPS_PER_SECOND = 60.0
#: seconds from the start of a process to its first step, and from its last step to its result
AROUND = 25.0
#: what a rehearsal changes: a few steps on a few rows
FEW = (
    "train.steps=10", "train.warmup=0", "train.batch_size=4", "task.max_train_samples=40", "task.max_eval_samples=8",
    "train.threads=1", "train.eval_every=100%",
)  # fmt: skip


def teachers(settings: Settings, until: float) -> list[str]:
    """Make the dense cells alone. ``tables`` finds them finished; so other parts may come between."""
    return make(settings, [cell for cell in all_cells(settings) if cell.dense], until)


def tables(settings: Settings, until: float) -> list[str]:
    """Make the cells that no earlier occasion has finished, and return the table of all."""
    return make(settings, all_cells(settings), until)


def all_cells(settings: Settings) -> list[Cell]:
    """Return the cells that were asked for."""
    return make_cells(settings.seeds, settings.batches, settings.tasks)


def make(settings: Settings, cells: list[Cell], until: float) -> list[str]:
    """Make those of the cells that no earlier occasion has finished, and return the table of all."""
    found = read_earlier(settings)
    jobs = make_jobs(settings, cells, {name for name, entry in found.items() if entry["state"] == ENDED})
    return run_and_report(settings, jobs, found, until)


def run_and_report(
    settings: Settings, jobs: dict[str, Job], found: dict[str, dict[str, Any]], until: float
) -> list[str]:
    """Run the jobs of cells, and return the table of all cells.

    ``found``: what is known of each cell by its name; it grows, and is written whenever a cell is over.
    """

    def note(job: Job) -> None:
        entry = entry_of(job, settings.work / "tables" / job.name)
        if job.state == ENDED or job.name not in found or found[job.name]["state"] != ENDED:  # a teacher made again
            found[job.name] = entry
        (settings.out / REPORT).write_text(json.dumps(found, indent=1))

    (settings.work / "tables").mkdir(parents=True, exist_ok=True)
    run_all(list(jobs.values()), settings.slots, until, note)
    for job in jobs.values():
        note(job)
    places = [settings.work / "tables", *earlier_only(settings.work)]
    report = subprocess.run(
        [sys.executable, "-m", "sparse_xp.report", *map(str, places)], capture_output=True, text=True, check=False
    )
    return [*rows_of(found), "", report.stdout or report.stderr[-2000:]]


def earlier_only(work: Path) -> list[Path]:
    """Return the directories of the cells of an earlier occasion that were not made again."""
    again = {path.parent.name for path in (work / "tables").glob("*/result.json")}
    return [path.parent for path in (work / "earlier/tables").glob("*/result.json") if path.parent.name not in again]


def read_earlier(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the entries of an earlier occasion by the name of their cell."""
    path = settings.done / REPORT if settings.done else None
    return dict(json.loads(path.read_text())) if path and path.exists() else {}


def make_jobs(settings: Settings, cells: list[Cell], finished: set[str]) -> dict[str, Job]:
    """Return the job of each cell by its name, without the finished ones; a teacher stays if a student needs it."""
    missing = [cell for cell in cells if cell.name not in finished]
    needed = {teacher_of(cell, cells) for cell in missing}
    jobs: dict[str, Job] = {}
    for cell in cells:
        if cell in missing or cell in needed:
            place = settings.work / "tables" / cell.name
            teacher = None if cell.dense else teacher_of(cell, cells).name
            command = command_of(settings, cell, place, settings.work / "tables" / teacher if teacher else None)
            expected = 0.0 if settings.rehearsal else AROUND + cell.steps / STEPS_PER_SECOND
            log, after = settings.work / "logs" / f"{cell.name}.txt", jobs[teacher] if teacher else None
            jobs[cell.name] = Job(cell.name, command, log, after, expected)
    return jobs


def command_of(settings: Settings, cell: Cell, place: Path, teacher: Path | None) -> list[str]:
    """Return the command of a cell. ``teacher``: the directory of its teacher's run."""
    words = [*cell.overrides(), f"model.checkpoint={settings.minilm}", f"data.root={settings.data}"]
    words += [f"data.cache={settings.work / 'cache'}", f"hydra.run.dir={quoted(place)}"]
    if teacher is not None:
        words += ["teacher=checkpoint", f"teacher.path={quoted(teacher)}"]
    if "recipe=speedup10" in cell.words:
        words.append(f"sparsity.latency={settings.inputs / 'latency.json'}")
    return [sys.executable, "-m", "sparse_xp", *words, *(FEW if settings.rehearsal else ())]


def quoted(path: Path) -> str:
    """Return a path as Hydra reads it, whatever signs it has."""
    return f"'{path}'"


def entry_of(job: Job, place: Path) -> dict[str, Any]:
    """Return what is known of a cell: its state, its result, and the end of its log if it has none."""
    entry: dict[str, Any] = {"state": job.state, "seconds": round(job.seconds), "note": job.note}
    if job.state == ENDED:
        entry["result"] = json.loads((place / "result.json").read_text())
    else:
        entry["step"] = last_step(place)
        entry["last lines"] = job.last_lines()
    return entry


def last_step(place: Path) -> int:
    """Return the last step that a run has logged, 0 for none."""
    path = place / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def rows_of(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return the cells as a table, and the last lines of those that failed."""
    lines = [
        "| cell | state | s | score of the file | zeros | removed | rows/s | file |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in found.items():
        if result := entry.get("result"):
            score = result["deployment"]["metrics"][result["metric"]]
            removed = (result["sparsity"].get("removed") or {}).get("share", 0.0)
            told = f"{result['metric']} {score:.2f} | {result['sparsity']['prunable']:.1%} | {removed:.1%}"
            told += f" | {result['training']['samples_per_second']:.0f} | {result['deployment']['bytes'] / 1e6:.1f} MB"
        else:
            told = f"step {entry['step']}; {entry['note']} | | | |"
        lines.append(f"| {name} | {entry['state']} | {entry['seconds']} | {told} |")
    for name, entry in found.items():
        if entry["state"] == "failed":
            lines += ["", f"{name}:", "```", *entry["last lines"], "```"]
    return lines
