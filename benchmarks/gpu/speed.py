"""The part ``speed``: rows per second of our loop and of a plain Trainer, and what modifiers cost."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections import defaultdict
from typing import Any

from benchmarks.gpu.cases import CASES, DENSE, PEAK, TRAINER, Case
from benchmarks.gpu.processes import ENDED, Job, run_all
from benchmarks.gpu.settings import Settings

REPORT = "speed.jsonl"
#: weights of BERT-base's encoder, its layers and width
ENCODER, LAYERS, WIDTH = 85_054_464, 12, 768
#: TFLOP/s of dense bf16 products of an H100 SXM or H200, as its data sheet has it
DATA_SHEET = 989.0
#: processes that may fail before the part gives up
ATTEMPTS = 8


def speed(settings: Settings, until: float) -> list[str]:
    """Measure until the time has come, and return the tables. A failed case costs a new process, not the part."""
    out, log = settings.out / REPORT, settings.work / "speed.log"
    for path in (out, log):
        path.unlink(missing_ok=True)
    if settings.rehearsal:
        os.environ["SPARSE_XP_REHEARSAL"] = "1"
    last: list[str] = []
    for _ in range(ATTEMPTS):
        seconds = until - time.monotonic() - 8
        if seconds < 5:
            break
        words = [str(settings.inputs), str(settings.work), str(out), f"{seconds:.0f}", settings.cases or ""]
        job = Job("speed", [sys.executable, "-m", "benchmarks.gpu.measure", *words], log)
        run_all([job], 1, until, lambda _: None)
        if job.state == ENDED:
            break
        last = [f"A process {job.state} {job.note}:", "```", *job.last_lines(), "```"]
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return [*report(lines), *last]


def report(lines: list[dict[str, Any]]) -> list[str]:
    """Return the tables of what was measured: lines as ``measure`` writes them."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        if "error" not in line:
            found[line["case"]].append(line)
    told = ["| case | ms a step | host's CPU ms a step | rows/s | of the Trainer's | tokens a row | measured |"]
    told.append("|---|---|---|---|---|---|---|")
    for case in CASES:
        if case.name in found:
            told.append(row_of(case, found))
    told += ["", *modifiers(found), "", *share_of_peak(found)]
    for line in lines:
        if "error" in line:
            told += ["", f"{line['case']} failed:", "```", *line["error"], "```"]
    return told


def median(found: dict[str, list[dict[str, Any]]], name: str, key: str = "ms") -> float:
    """Return the median over all stretches of a case."""
    return float(statistics.median(value for line in found[name] for value in line[key]))


def row_of(case: Case, found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the row of a case."""
    ms, cpu = median(found, case.name), median(found, case.name, "cpu_ms")
    theirs = next((c.name for c in CASES if c.words == (TRAINER,) and same_rows(c, case) and c.name in found), None)
    distils = any(word.startswith("teacher=") and word != "teacher=none" for word in case.words)
    ratio = f"{median(found, theirs) / ms:.2f}" if theirs and distils else ""
    tokens = found[case.name][0]["tokens"]
    return (
        f"| {case.name} | {ms:.2f} | {cpu:.1f} | {1e3 * case.batch / ms:.0f} | {ratio} | {tokens:.0f} | "
        f"{len(found[case.name])} x {len(found[case.name][0]['ms'])} |"
    )


def same_rows(one: Case, other: Case) -> bool:
    """Return whether two cases have the same model, rows and batch."""
    return (one.shape, one.task, one.batch) == (other.shape, other.task, other.batch)


def modifiers(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return what a step with each modifier takes, over a dense step."""
    if DENSE.name not in found:
        return []
    dense, names = median(found, DENSE.name), [c.name for c in CASES if c.name.startswith("step: ") and c != DENSE]
    return [f"- {name}: {median(found, name) / dense:.3f} of a dense step" for name in names if name in found]


def share_of_peak(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the model's floating-point operations per second as a share of the measured peak and the data sheet's.

    6 operations for each weight and token, and 12 * layers * tokens * width for each token's attention.
    """
    told = []
    for name in (PEAK.name, f"{PEAK.name}, compiled"):
        if name in found and found["peak"]:
            tokens = found[PEAK.name][0]["tokens"] if PEAK.name in found else 384.0
            operations = PEAK.batch * tokens * (6 * ENCODER + 12 * LAYERS * tokens * WIDTH)
            rate, best = operations / median(found, name) / 1e9, found["peak"][0]["tflops"]
            told.append(
                f"- {name}: {rate:.0f} TFLOP/s, {rate / best:.1%} of {best:.0f} measured here, "
                f"{rate / DATA_SHEET:.1%} of the data sheet's {DATA_SHEET:.0f}"
            )
    return told
