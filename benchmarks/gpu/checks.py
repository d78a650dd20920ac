"""The part ``tests``: ``pytest -m gpu``, or what failed in it on an earlier occasion."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.processes import Job, run_all
from benchmarks.gpu.settings import Settings

REPORT = "tests.txt"
#: a line of ``pytest -v`` with xdist, or of its short summary
_OUTCOME = re.compile(r"(PASSED|FAILED|ERROR|SKIPPED)\s+(tests/\S+?::.+?)(?: - .*)?$")
#: the message of a failure
_MESSAGE = re.compile(r"^E  ")


def tests(settings: Settings, until: float) -> list[str]:
    """Run the tests, and return lines for the summary."""
    chosen = ["tests/gpu"]
    if settings.done and (settings.done / REPORT).exists():
        chosen = failed(settings.done / REPORT)
        if not chosen:
            return ["Nothing failed on the earlier occasion."]
    if settings.rehearsal:
        os.environ["SPARSE_XP_GPU_TESTS"] = "cpu"
    options = [
        "-v",
        "-rfEs",
        "--tb=short",
        "--durations=12",
        "-p",
        "no:cacheprovider",
        f"--numprocesses={settings.workers}",
    ]
    if find_spec("pytest_timeout"):
        options.append("--timeout=120")
    log = settings.out / REPORT
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", *options, f"--basetemp={settings.work / 'pytest'}", *chosen]
    job = Job("pytest -m gpu", command, log)
    run_all([job], 1, until, lambda _: None)
    lines = log.read_text(errors="replace").splitlines()
    outcomes = outcomes_in(lines)
    counts = {kind: sum(outcome == kind for outcome in outcomes.values()) for kind in sorted(set(outcomes.values()))}
    told = ", ".join(f"{count} {kind.lower()}" for kind, count in counts.items()) or "no test ran"
    messages = [line for line in lines if _MESSAGE.match(line)][-60:]
    last = [] if outcomes else job.last_lines()
    summary = [f"{told}; {job.state} after {job.seconds:.0f} s {job.note}".rstrip(), ""]
    summary += [f"- {kind} `{name}`" for name, kind in outcomes.items() if kind in ("FAILED", "ERROR")]
    return summary + (["", "```", *messages, *last, "```"] if messages or last else [])


def outcomes_in(lines: list[str]) -> dict[str, str]:
    """Return the outcome of each test that ended, by its name."""
    found = (_OUTCOME.search(line.strip()) for line in lines)
    return {match[2].strip(): match[1] for match in found if match}


def failed(report: Path) -> list[str]:
    """Return the names of the tests that failed, as a report has them; all tests if it has none at all."""
    outcomes = outcomes_in(report.read_text(errors="replace").splitlines())
    return [name for name, kind in outcomes.items() if kind in ("FAILED", "ERROR")] if outcomes else ["tests/gpu"]
