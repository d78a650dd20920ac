"""What an import, or asking the command line for help, costs beside ``import hydra``.

    python benchmarks/imports.py                            # one row per module
    python benchmarks/imports.py --modules torch evaluate --repeats 9
    python benchmarks/imports.py --commands                 # the commands that only compose a config

Each case runs in a fresh interpreter. The cases take turns, so that a busy spell of the machine hits all of
them, and a first round that fills the disk cache and writes bytecode is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASELINE = "hydra"
MODULES = ("torch", "transformers", "datasets", "evaluate", "sparse_xp.config")
COMMANDS = {
    "python -m sparse_xp --help": ["-m", "sparse_xp", "--help"],
    "python -m sparse_xp --cfg job profile=embedded": ["-m", "sparse_xp", "--cfg", "job", "profile=embedded"],
}
# getrusage counts KiB on Linux and bytes on macOS.
RSS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10


@dataclass(frozen=True)
class Cost:
    """What one process took: ``seconds`` of wall time and ``mib``, its peak resident memory in MiB."""

    seconds: float
    mib: float


def measure(arguments: list[str]) -> Cost:
    """Run ``python <arguments>`` at the root of the checkout; a failing command is a ``RuntimeError``."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    errors = child.stderr.read()
    # wait4, because getrusage(RUSAGE_CHILDREN) keeps the peak of the largest child so far.
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stderr.close()
    if child.returncode != 0:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {child.returncode}:\n{errors}")
    return Cost(seconds, usage.ru_maxrss / RSS_PER_MIB)


def measure_in_turn(cases: dict[str, list[str]], repeats: int) -> dict[str, list[Cost]]:
    """Return ``repeats`` costs of each case, after one uncounted round."""
    costs: dict[str, list[Cost]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, arguments in cases.items():
            cost = measure(arguments)
            if turn > 0:
                costs[name].append(cost)
    return costs


def table(costs: dict[str, list[Cost]]) -> str:
    """Return a Markdown table: median seconds, peak MiB, and both as ratios to the first case."""
    seconds = {name: statistics.median(cost.seconds for cost in runs) for name, runs in costs.items()}
    peaks = {name: max(cost.mib for cost in runs) for name, runs in costs.items()}
    first = next(iter(costs))
    lines = ["| case | seconds | ratio | peak MiB | ratio |", "|---|---:|---:|---:|---:|"]
    for name in costs:
        time_ratio, peak_ratio = seconds[name] / seconds[first], peaks[name] / peaks[first]
        lines.append(f"| `{name}` | {seconds[name]:.3f} | {time_ratio:.2f} | {peaks[name]:.0f} | {peak_ratio:.2f} |")
    return "\n".join(lines)


def import_of(module: str) -> list[str]:
    """Return the arguments that make Python import ``module`` and end."""
    return ["-c", f"import {module}"]


def main() -> None:
    """Measure what the command line asks for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="counted runs of each case (default: 5)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--modules", nargs="+", default=MODULES, help=f"modules to import, besides {BASELINE}")
    what.add_argument("--commands", action="store_true", help="time commands of sparse_xp, not imports")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}, want 1 or more")

    cases = {f"import {BASELINE}": import_of(BASELINE)}
    if options.commands:
        cases |= COMMANDS
    else:
        cases |= {f"import {module}": import_of(module) for module in options.modules}
    print(f"median of {options.repeats} fresh processes each, Python {sys.version.split()[0]}\n")
    print(table(measure_in_turn(cases, options.repeats)))


if __name__ == "__main__":
    main()
