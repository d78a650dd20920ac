"""The job: tests, speeds and real tables on a machine with a GPU, in a given time.  README.md says how to start it.

    python -m benchmarks.gpu.job --inputs .gpu --out OUT [--minutes 9] [--parts tests,speed,tables] [--done RESULTS]

The parts come one after the other. What a part found is written when it ends, so that nothing is lost if the job is
stopped from outside; a part that fails does not stop the others. OUT gets at most eight files.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from benchmarks.gpu.checks import tests
from benchmarks.gpu.embeddings import embeddings
from benchmarks.gpu.packing import pack_models, pack_results, unpack_earlier
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.speed import speed
from benchmarks.gpu.tables import tables, teachers

BEGAN = time.monotonic()
#: seconds at the end, for packing
PACKING = 12.0
Part = Callable[[Settings, float], list[str]]
#: for each part its function, the share of the remaining time that it may take if others follow, and its limit in s
PARTS: dict[str, tuple[Part, float, float]] = {
    "tests": (tests, 0.65, 120.0),
    "teachers": (teachers, 0.65, 120.0),
    "speed": (speed, 0.65, 120.0),
    "tables": (tables, 1.0, 3600.0),
    "embeddings": (embeddings, 1.0, 3600.0),
}


def main() -> None:
    """Run the parts in order, and write what each has found."""
    asked = parse_arguments()
    settings = settings_of(asked)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped from outside"))
    end = BEGAN + 60 * asked.minutes - PACKING
    summary = [machine()]
    try:
        for number, name in enumerate(parts := asked.parts.split(",")):
            part, share, most = PARTS[name]
            began = time.monotonic()
            last = number == len(parts) - 1
            until = end if last else began + min(most, share * max(0.0, end - began))
            lines = found_by(part, settings, until)
            summary += ["", f"## {name} ({time.monotonic() - began:.0f} s)", "", *lines]
            (settings.out / "summary.md").write_text("\n".join(summary) + "\n")
            pack_results(settings.work, settings.out)
    finally:
        pack_results(settings.work, settings.out)
        pack_models(settings.work, settings.out)
    print("\n".join(summary))


def found_by(part: Part, settings: Settings, until: float) -> list[str]:
    """Return the lines of a part, or how it failed."""
    try:
        return part(settings, until)
    except Exception:
        return ["The part failed:", "```", *traceback.format_exc().splitlines()[-25:], "```"]


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=Path, required=True, help="the directory that job.sh prepare filled")
    parser.add_argument("--out", type=Path, required=True, help="where results go")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "gpu_job", help="where runs are made"
    )
    parser.add_argument("--done", type=Path, help="results of an earlier occasion, whose finished cells are left out")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--parts", default="tests,speed,tables")
    parser.add_argument("--slots", type=int, default=7, help="runs of the tables side by side")
    parser.add_argument("--workers", type=int, default=8, help="processes of pytest")
    parser.add_argument("--seeds", default="1", help="further seeds of the tables")
    parser.add_argument("--tasks", help="of the tables only these")
    parser.add_argument("--batch", default="sst2=64,squad=32", help="rows of a batch, where not the recipes' own")
    parser.add_argument("--cases", help="of the speeds only those whose name has this in it")
    parser.add_argument("--steps", type=int, default=4000, help="of each run of the embeddings")
    parser.add_argument("--rehearsal", action="store_true", help="a few steps of everything, on any machine")
    return parser.parse_args()


def settings_of(asked: argparse.Namespace) -> Settings:
    """Return the settings of the parts, with their directories made."""
    for place in (asked.out, asked.work):
        place.mkdir(parents=True, exist_ok=True)
    done = asked.done
    if done is not None and not done.is_dir():
        sys.exit(f"--done {done}: there is no such directory")
    if done is not None:
        shutil.rmtree(asked.work / "earlier", ignore_errors=True)
        unpack_earlier(done, asked.work)
    return Settings(
        inputs=asked.inputs.resolve(),
        out=asked.out.resolve(),
        work=asked.work.resolve(),
        done=done.resolve() if done else None,
        slots=asked.slots,
        workers=asked.workers,
        seeds=tuple(int(seed) for seed in asked.seeds.split(",") if seed),
        batches={task: int(rows) for task, _, rows in (part.partition("=") for part in asked.batch.split(",") if part)},
        tasks=tuple(asked.tasks.split(",")) if asked.tasks else None,
        cases=asked.cases,
        steps=asked.steps,
        rehearsal=asked.rehearsal,
    )


def machine() -> str:
    """Return what this runs on, in one line."""
    import os

    import torch

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    names = ("torch", "transformers", "accelerate", "onnxruntime", "datasets", "hydra-core")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{card}, {os.cpu_count()} cores, Python {sys.version.split()[0]}, {versions}"


if __name__ == "__main__":
    main()
