"""``python -m sparse_xp.benchmark``: how fast an exported file is, beside the dense fp32 model of its shape.

    python -m sparse_xp.benchmark run=RUN [against=RUN] [lengths=[32,128,384]] [batch=[1,32]] [threads=1]
        [engine=[onnxruntime,openvino]] [rounds=20] [out=DIR]

``model=DEPLOYMENT`` in place of ``run=``. ``against=``: the run or deployment folder to compare with; by default the
same graph with its zeros filled up. All files and engines take turns, round by round, in each as many calls as take
20 ms or longer; figures are medians over the rounds, ratios medians of each round's. Prints a table, and writes it as
JSON and as a chart (SVG) into ``out=`` (by default ``benchmark/`` in the run, or beside the folder).
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from sparse_xp.chart import Bar, bar_chart
from sparse_xp.cli import command, several, split, whole
from sparse_xp.console import say
from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.bundle import check_files, deployment_of, locate, max_tokens, vocabulary
from sparse_xp.deployment.engines import ENGINES, Batch, Call, choose, library, versions
from sparse_xp.deployment.graph import Inside, fill_zeros, fixed_shape, look
from sparse_xp.errors import UserError
from sparse_xp.files import WRITTEN, claim, is_signed, write_text
from sparse_xp.text import markdown

FILES = ("benchmark.json", "benchmark.svg")
OURS = ("run", "model", "against", "lengths", "batch", "threads", "engine", "rounds", "out")
LENGTHS = (32, 128, 384)
WARM = 2
#: seconds that a turn takes at least: below, the clock and the start of a call would decide
TURN = 0.02
#: a ratio between these is no gain and no loss
SAME = (0.9, 1.1)
REMEDY = "What would be faster: integers (an int8 file) and structured removal (fewer layers, heads or neurons)."


@dataclass
class Cell:
    """One engine, batch and length. Milliseconds a call and rows a second are medians over the rounds.

    ``ratio``: how many times as fast as the reference, the median of the rounds' own, ``low`` and ``high`` quartiles.
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


@dataclass
class Asked:
    """What the words of the command say."""

    directory: Path
    against: Path | None
    engines: list[str]
    lengths: list[int]
    batches: list[int]
    threads: list[int]
    rounds: int
    out: Path


def main(words: list[str]) -> None:
    """Run the command with these words."""
    given = split(words, OURS)
    asked = read(given)
    for name in FILES:
        claim(asked.out / name, is_signed, "Name another directory with out=.")
    inside = look(asked.directory / "model.onnx")
    if inside.integers and not asked.against:
        raise UserError(
            f"{asked.directory}/model.onnx computes with integers: no dense fp32 file can be made of it. Give "
            "against=DIR, the run or the deployment folder of the dense fp32 model (that of recipe=dense, say)."
        )
    if "engine" not in given:
        for name in sorted(set(ENGINES) - set(asked.engines)):
            say(f"{name} is not installed and left out: pip install 'sparse-xp[{name}]'")
    with tempfile.TemporaryDirectory() as place:
        reference = asked.against / "model.onnx" if asked.against else Path(place) / "dense.onnx"
        if not asked.against:
            fill_zeros(asked.directory / "model.onnx", reference)
        cells = compare(asked, reference)
    says = [verdict(name, cells, inside, asked.against) for name in asked.engines]
    says += [REMEDY] * any("gains nothing from" in said for said in says)
    write(asked, inside, cells, says)


def read(given: dict[str, str]) -> Asked:
    """The words as what they mean. Raises UserError for those that mean nothing."""
    lists = ("lengths", "batch", "threads")
    numbers = {key: [whole(key, each) for each in several(given[key])] for key in lists if key in given}
    engines = choose(several(given["engine"]) if "engine" in given else None)
    directory, against = locate(given), deployment_of(Path(given["against"])) if "against" in given else None
    places = [directory, *([against] if against else [])]
    for place in places:
        check_files(place)
    most = min(map(max_tokens, places))
    for place in places:
        for key, size in zip(("batch", "lengths"), fixed_shape(place / "model.onnx"), strict=True):
            if size and numbers.setdefault(key, [size]) != [size]:
                raise UserError(
                    f"{key}={given.get(key, size)}: {place}/model.onnx was exported for {key}={size} alone."
                )
    for length in numbers.get("lengths", []):
        if not 2 <= length <= most:
            raise UserError(f"lengths={length}: the model takes 2 to {most} tokens.")
    return Asked(
        directory=directory,
        against=against,
        engines=engines,
        lengths=numbers.get("lengths") or [length for length in LENGTHS if length <= most] or [most],
        batches=numbers.get("batch") or [1, 32],
        threads=numbers.get("threads") or [1],
        rounds=whole("rounds", given.get("rounds", "20")),
        out=Path(given.get("out") or run_or_parent(given) / "benchmark"),
    )


def compare(asked: Asked, reference: Path) -> list[Cell]:
    """Every engine with every shape, the file and the reference in turn."""
    places = [asked.directory, *([asked.against] if asked.against else [])]
    words = min(map(vocabulary, places))
    pairs = {
        (name, threads): (ENGINES[name](asked.directory / "model.onnx", threads), ENGINES[name](reference, threads))
        for name, threads in product(asked.engines, asked.threads)
    }
    bar, cells = Console(stderr=True), []
    shapes = list(product(asked.batches, asked.lengths))
    for batch, length in track(shapes, "shapes", console=bar, disable=not bar.is_terminal, transient=True):
        arrays = make_batch(batch, length, words)
        for pair in pairs.values():
            for path, call in zip((asked.directory / "model.onnx", reference), pair, strict=True):
                with library(path):
                    call(arrays)
        seconds = take_turns(pairs, arrays, asked.rounds)
        cells += [cell(name, threads, batch, length, pair) for (name, threads), pair in seconds.items()]
    return sorted(cells, key=lambda each: (each.engine, each.threads, each.batch, each.length))


def make_batch(rows: int, tokens: int, words: int) -> Batch:
    """Rows of random tokens, all of them real; int64 [rows, tokens]."""
    ids = np.random.default_rng(0).integers(0, words, (rows, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def take_turns(
    pairs: dict[tuple[str, int], tuple[Call, Call]],
    batch: Batch,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """Seconds a call of the file and of the reference in each round. In every other round the reference goes first.

    A turn is as many calls as take ``TURN`` seconds or longer, the same number of both.
    """
    found: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in pairs}
    calls: dict[tuple[str, int], int] = {}
    for key, pair in pairs.items():
        for _ in range(WARM):
            took = [timed(call, batch, 1, clock) for call in pair]
        calls[key] = max(1, math.ceil(TURN / max(min(took), 1e-6)))
    for number in range(rounds):
        for key, pair in pairs.items():
            took = [0.0, 0.0]
            for side in (0, 1) if number % 2 else (1, 0):
                took[side] = timed(pair[side], batch, calls[key], clock)
            found[key].append((took[0], took[1]))
    return found


def timed(call: Call, batch: Batch, times: int, clock: Callable[[], float]) -> float:
    """Seconds a call."""
    begun = clock()
    for _ in range(times):
        call(batch)
    return (clock() - begun) / times


def cell(engine: str, threads: int, batch: int, length: int, seconds: list[tuple[float, float]]) -> Cell:
    """The medians of the rounds' seconds, (file, reference)."""
    ratios = [reference / ours for ours, reference in seconds]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    ours = statistics.median(pair[0] for pair in seconds)
    return Cell(
        engine=engine,
        threads=threads,
        batch=batch,
        length=length,
        ms=1e3 * ours,
        reference_ms=1e3 * statistics.median(pair[1] for pair in seconds),
        rows_per_second=batch / ours,
        ratio=statistics.median(ratios),
        low=low,
        high=high,
    )


def run_or_parent(given: dict[str, str]) -> Path:
    """The default place of the results: never inside a deployment folder, whose files are all listed."""
    return Path(given["run"]) if "run" in given else Path(given["model"]).resolve().parent


def verdict(engine: str, cells: list[Cell], inside: Inside, against: Path | None) -> str:
    """What the ratios of ``engine`` mean, in a sentence or two."""
    ratios = [each.ratio for each in cells if each.engine == engine]
    told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    where = f" on {this_cpu().short}"
    if not against and inside.zeros == 0:
        return f"{engine}: {told}; the file has no zeros, this is itself against itself: what differs is noise."
    reference = f"the file of {against}" if against else "the same graph without zeros"
    same = SAME[0] <= statistics.median(ratios) <= SAME[1]
    if same and inside.integers:
        return f"{engine}: {told} times as fast as {reference}{where}: it gains nothing there from integers or zeros."
    if same and inside.zeros > 0.05:
        return (
            f"{engine}: {told} times as fast as {reference}{where}: it gains nothing from zeros ({inside.zeros:.1%} of "
            "what it multiplies by): it multiplies by them like by any number."
        )
    return f"{engine}: {told} times as fast as {reference}{where}."


def write(asked: Asked, inside: Inside, cells: list[Cell], says: list[str]) -> None:
    """The table on the screen and in ``benchmark.json``, the chart in ``benchmark.svg``."""
    against = str(asked.against) if asked.against else "the same graph, zeros filled"
    told = {
        "file": str(asked.directory / "model.onnx"),
        "against": against,
        **asdict(inside),
        "rounds": asked.rounds,
        "machine": str(this_cpu()),
        "versions": versions(asked.engines),
        "cells": [asdict(each) for each in cells],
        "says": says,
        "by": WRITTEN,
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    report, chart = (claim(asked.out / name, is_signed, "Name another directory with out=.") for name in FILES)
    write_text(report, json.dumps(told, indent=2) + "\n")
    bars = [
        Bar(f"{name_of(each)}, batch {each.batch}, {each.length} tokens", each.ratio, note(each), name_of(each))
        for each in cells
    ]
    than = "another file" if asked.against else "dense fp32"
    title = f"Times as fast as {than} on {this_cpu().short}; {inside.zeros:.0%} zeros"
    write_text(chart, bar_chart(title, bars, 1.0, "1.0"))
    say(f"{told['file']} against {against}, {this_cpu()}, {asked.rounds} rounds\n")
    say(markdown([row(each) for each in cells]))
    say("\n" + "\n".join(says) + f"\n\n{asked.out}/benchmark.json, {asked.out}/benchmark.svg")


def row(each: Cell) -> dict[str, str]:
    """A line of the table."""
    return {
        "engine": each.engine,
        "threads": str(each.threads),
        "batch": str(each.batch),
        "tokens": str(each.length),
        "ms a call": f"{each.ms:.2f}",
        "rows/s": f"{each.rows_per_second:.1f}",
        "reference ms": f"{each.reference_ms:.2f}",
        "ratio": f"{each.ratio:.2f}",
        "quartiles": f"{each.low:.2f} to {each.high:.2f}",
    }


def name_of(each: Cell) -> str:
    """The engine, with its threads if they are several."""
    return each.engine if each.threads == 1 else f"{each.engine} {each.threads}T"


def note(each: Cell) -> str:
    """Latency for one row, throughput for several."""
    speed = f"{each.ms:.1f} ms" if each.batch == 1 else f"{each.rows_per_second:.0f} rows/s"
    return f"{each.ratio:.2f}x, {speed}"


if __name__ == "__main__":
    command(main, __doc__)
