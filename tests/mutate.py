"""Mutation testing of the core: change an operator or a number, and see whether a test notices it (``make mutate``).

    python -m tests.mutate [mutants=120] [seed=1] [processes=2]

The tool is mutmut (extra ``mutate``); ``[tool.mutmut]`` in pyproject.toml names the files that are mutated and the
tests that should notice. It works in a copy of the repository. All mutants would take hours. The first mutant of every
function is tried, then others drawn from ``seed``, until there are ``mutants``.

A survivor is printed as a diff. Either a test is missing or the change makes no difference: read it, and decide.
Ten to fifteen minutes on two cores, so it is no part of the test suite or of CI. The exit code is 0 in any case.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from sparse_xp.cli import parse_key_values, positive_integer
from sparse_xp.errors import UserError

ROOT = Path(__file__).parent.parent
COPIED = ("sparse_xp", "tests", "conf", "sweeps", "hydra_plugins", "pyproject.toml", "README.md")
DEFAULTS = {"mutants": 120, "seed": 1, "processes": 2}
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
#: a test noticed the mutant; ``timeout`` is an endless loop, ``segfault`` and ``suspicious`` are ends that mutmut did
#: not expect
KILLED = ("killed", "timeout", "segfault", "suspicious")


def mutmut(directory: Path, *arguments: str) -> str:
    """Return what a command of mutmut prints in ``directory``. Raise UserError with its last lines if it fails."""
    program = Path(sys.executable).with_name("mutmut")
    if not program.exists():
        raise UserError("mutmut is not installed: pip install -e '.[mutate]'.")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [program, *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        # The spinner writes a line for each of its turns.
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip() and line[0] not in SPINNER]
        raise UserError(f"mutmut {arguments[0]} ended with {done.returncode}:\n" + "\n".join(lines[-40:]))
    return done.stdout


def read_results(directory: Path) -> dict[str, str]:
    """Return the status of every mutant by its name, ``not checked`` for those that were not tried."""
    lines = (line.strip().rpartition(": ") for line in mutmut(directory, "results", "--all", "true").splitlines())
    return {name: status for name, separator, status in lines if separator}


def function_of(mutant: str) -> str:
    """Return the mangled name of the function that a mutant is of."""
    return mutant.rpartition("__mutmut_")[0]


def draw_mutants(results: dict[str, str], count: int, seed: int) -> list[str]:
    """Return up to ``count`` mutants that were not tried yet, of functions that a test reaches."""
    unreached = {function_of(name) for name, status in results.items() if status == "no tests"}
    untried = [name for name, status in results.items() if status == "not checked"]
    candidates = sorted(name for name in untried if function_of(name) not in unreached)
    return random.Random(seed).sample(candidates, max(0, min(count, len(candidates))))


def main(words: list[str]) -> None:
    """Run the command with these words."""
    given = {key: positive_integer(key, value) for key, value in parse_key_values(words, DEFAULTS).items()}
    options = DEFAULTS | given
    workers = ("--max-children", str(options["processes"]))
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, directory / name)
        print("making the mutants, recording which tests reach them, trying the first of each function", flush=True)
        mutmut(directory, "run", *workers, "*__mutmut_1")
        results = read_results(directory)
        tried = sum(status != "not checked" for status in results.values())
        drawn = draw_mutants(results, options["mutants"] - tried, options["seed"])
        print(f"{tried} of {len(results)} mutants tried, {len(drawn)} more follow", flush=True)
        if drawn:
            mutmut(directory, "run", *workers, *drawn)
        results = {name: status for name, status in read_results(directory).items() if status != "not checked"}
        for name, status in results.items():
            if status not in KILLED:
                print(f"\n{status}: {name}\n{mutmut(directory, 'show', name)}")
        counts = Counter(results.values())
        print(", ".join(f"{count} {status}" for status, count in counts.most_common()), f"of {len(results)} mutants")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
