"""Time an exported file and a reference in turn, for ``sparse_xp.benchmark``.

The machine's speed changes while a benchmark runs. Both files are therefore called within every round, and the ratio
is taken per round.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from sparse_xp.deployment.bundle import vocabulary_size
from sparse_xp.deployment.engines import ENGINES, Batch, Call
from sparse_xp.deployment.onnx_file import library_errors

#: calls before the first timed one
WARM_UP_CALLS = 2
#: seconds that a turn takes at least: below, the clock's resolution and the start of a call would dominate
TURN_SECONDS = 0.02

#: an engine and its number of threads
EngineKey = tuple[str, int]
#: of the file, and of the reference
Seconds = tuple[float, float]


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is measured. ``directory``, ``against``: deployment folders; ``out``: where files go, None for no files."""

    directory: Path
    against: Path | None
    engines: list[str]
    lengths: list[int]
    batches: list[int]
    threads: list[int]
    rounds: int
    out: Path | None

    @property
    def file(self) -> Path:
        """The file that is measured."""
        return self.directory / "model.onnx"


@dataclass
class Measurement:
    """One engine, batch and length. Milliseconds a call and rows a second are medians over the rounds.

    ``ratio``: how many times as fast as the reference the file is, the median of the rounds' ratios; ``low`` and
    ``high``: their quartiles.
    """

    engine: str
    threads: int
    batch: int
    length: int
    ms: float
    reference_ms: float
    rows_per_second: float
    ratio: float
    low: float
    high: float


def measure_all(options: BenchmarkOptions, reference: Path) -> list[Measurement]:
    """Time ``options.directory`` and the file ``reference`` with every engine, number of threads, batch and length."""
    path = options.file
    folders = [options.directory, *([options.against] if options.against else [])]
    vocabulary = min(map(vocabulary_size, folders))  # token ids must exist in both
    calls = {
        (engine, threads): (ENGINES[engine](path, threads), ENGINES[engine](reference, threads))
        for engine, threads in product(options.engines, options.threads)
    }
    progress, measurements = Console(stderr=True), []
    shapes = list(product(options.batches, options.lengths))
    for batch, length in track(shapes, "shapes", console=progress, disable=not progress.is_terminal, transient=True):
        arrays = make_batch(batch, length, vocabulary)
        # One call of each with library errors explained: a faulty file fails in its first call.
        for pair in calls.values():
            for file, call in zip((path, reference), pair, strict=True):
                with library_errors(file):
                    call(arrays)
        for (engine, threads), seconds in take_turns(calls, arrays, options.rounds).items():
            measurements.append(summarize_rounds(engine, threads, batch, length, seconds))
    return sorted(measurements, key=lambda m: (m.engine, m.threads, m.batch, m.length))


def make_batch(rows: int, tokens: int, vocabulary: int) -> Batch:
    """Return rows of random token ids below ``vocabulary``, without padding; int64 [rows, tokens]."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (rows, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def take_turns(
    pairs: dict[EngineKey, tuple[Call, Call]],
    batch: Batch,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[EngineKey, list[Seconds]]:
    """Return the seconds a call of the file and of the reference in each round, by engine.

    A turn is the number of calls that take at least ``TURN_SECONDS``, the same for both. The reference runs first in
    every other round.

    ``pairs``: the calls of the file and of the reference.
    """
    repetitions: dict[EngineKey, int] = {}
    for key, pair in pairs.items():
        for _ in range(WARM_UP_CALLS):
            seconds = [time_calls(call, batch, 1, clock) for call in pair]
        repetitions[key] = max(1, math.ceil(TURN_SECONDS / max(min(seconds), 1e-6)))
    measured: dict[EngineKey, list[Seconds]] = {key: [] for key in pairs}
    for number in range(rounds):
        for key, pair in pairs.items():
            seconds = [0.0, 0.0]
            for side in (0, 1) if number % 2 else (1, 0):
                seconds[side] = time_calls(pair[side], batch, repetitions[key], clock)
            measured[key].append((seconds[0], seconds[1]))
    return measured


def time_calls(call: Call, batch: Batch, repetitions: int, clock: Callable[[], float]) -> float:
    """Return the seconds a call, the mean over ``repetitions``."""
    begin = clock()
    for _ in range(repetitions):
        call(batch)
    return (clock() - begin) / repetitions


def summarize_rounds(engine: str, threads: int, batch: int, length: int, seconds: list[Seconds]) -> Measurement:
    """Return the medians over the rounds. ``seconds``: of the file and of the reference, by round."""
    ratios = [reference / file for file, reference in seconds]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    median = statistics.median(file for file, _ in seconds)
    return Measurement(
        engine=engine,
        threads=threads,
        batch=batch,
        length=length,
        ms=1e3 * median,
        reference_ms=1e3 * statistics.median(reference for _, reference in seconds),
        rows_per_second=batch / median,
        ratio=statistics.median(ratios),
        low=low,
        high=high,
    )
