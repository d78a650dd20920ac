"""Time exported files in turn:  python -m benchmarks.embeddings.speed RESULTS.json FILE... [--threads 1 2]

A FILE is what ``score`` takes; the first one is the reference (fp32). All files take turns, round by round, so that a
busy machine slows all of them down. A figure is the median over the rounds of the round's ratio to the reference; the
milliseconds are medians, too. Kernels are onnxruntime's own, without the two fusions that slow down every file
(``sparse_xp.deployment.engines``).
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.embeddings.entries import parse_entry
from benchmarks.embeddings.results import add_results
from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.engines import Batch, Call, onnxruntime_call
from sparse_xp.deployment.timing import TURN_SECONDS, WARM_UP_CALLS, make_batch, time_calls

#: rows and tokens of a call
SHAPES = ((1, 32), (1, 128), (32, 128))
#: token ids of the random texts are below this, which every vocabulary has
VOCABULARY = 20_000


@dataclass(frozen=True)
class Speed:
    """The speed of one file, shape and number of threads. ``ratio``: times as fast as the reference."""

    ms: float
    ratio: float
    low: float
    high: float


def main() -> None:
    """Time the files with each number of threads and each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("files", nargs="+", type=parse_entry)
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    machine = {"cpu": this_cpu().short, "onnxruntime": version("onnxruntime"), "rounds": options.rounds}
    add_results(options.results, "machine", machine)
    measured: dict[str, dict[str, dict[str, float]]] = {entry.name: {} for entry in options.files}
    for threads in options.threads:
        calls = {entry.name: onnxruntime_call(entry.model, threads, exact=False) for entry in options.files}
        for rows, tokens in SHAPES:
            seconds = take_turns(calls, make_batch(rows, tokens, VOCABULARY), options.rounds)
            for name, speed in summarize(seconds).items():
                measured[name][shape_key(rows, tokens, threads)] = asdict(speed)
                print(f"{shape_key(rows, tokens, threads)} {name}: {speed.ratio:.2f} ({speed.ms:.2f} ms)", flush=True)
            add_results(options.results, "speed", measured)


def shape_key(rows: int, tokens: int, threads: int) -> str:
    """Return the key of a shape in the results, ``1x128`` or ``1x128, 2 threads``."""
    return f"{rows}x{tokens}" + f", {threads} threads" * (threads > 1)


def take_turns(
    calls: dict[str, Call], batch: Batch, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds a call of every file in each round.

    In a turn a file is called until ``TURN_SECONDS`` are over, in turns of like length for all files. Every other round
    goes backwards.
    """
    repetitions = {}
    for name, call in calls.items():
        for _ in range(WARM_UP_CALLS):
            seconds = time_calls(call, batch, 1, clock)
        repetitions[name] = max(1, math.ceil(TURN_SECONDS / max(seconds, 1e-6)))
    measured: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            measured[name].append(time_calls(calls[name], batch, repetitions[name], clock))
    return measured


def summarize(seconds: dict[str, list[float]]) -> dict[str, Speed]:
    """Return the medians over the rounds, and the quartiles of the ratios. The first file is the reference."""
    reference = next(iter(seconds.values()))
    found = {}
    for name, own in seconds.items():
        ratios = [other / each for other, each in zip(reference, own, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        found[name] = Speed(1e3 * statistics.median(own), statistics.median(ratios), low, high)
    return found


if __name__ == "__main__":
    main()
