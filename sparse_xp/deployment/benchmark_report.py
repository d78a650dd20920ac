"""What ``sparse_xp.benchmark`` returns and writes: a table, ``benchmark.json`` and a chart.

``report.rows`` reads ``benchmark.json`` again, for the latency columns of a sweep.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path

from sparse_xp.chart import Bar, bar_chart
from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.engines import engine_versions
from sparse_xp.deployment.graph import GraphStats
from sparse_xp.deployment.timing import BenchmarkOptions, Measurement
from sparse_xp.files.json_text import to_json
from sparse_xp.files.ownership import check_replaceable
from sparse_xp.files.signed import SIGNATURE, is_signed
from sparse_xp.files.writing import write_text
from sparse_xp.text import markdown

FILES = ("benchmark.json", "benchmark.svg")
#: the fewest rounds of which the quartiles tell a difference from noise
ENOUGH_ROUNDS = 10
#: ratios between these are hardly a gain, or none
EQUAL = (0.9, 1.1)
REMEDY = "What would be faster: integers (an int8 file) and structured removal (fewer layers, heads or neurons)."


class Measurements(list[Measurement]):
    """What ``sparse_xp.benchmark`` measured, in a list that prints as a table with conclusions.

    ``options``: what was asked for. ``stats``: zeros and integers of the file. ``conclusions``: a sentence for each
    engine, and advice on what is faster if one gains nothing from zeros.
    """

    def __init__(self, measured: list[Measurement], options: BenchmarkOptions, stats: GraphStats):
        super().__init__(measured)
        self.options, self.stats = options, stats
        self.conclusions = draw_conclusions(options, measured, stats)

    @property
    def reference(self) -> str:
        """What the file was compared with."""
        return str(self.options.against or "the same graph, zeros filled")

    def __str__(self) -> str:
        title = f"{self.options.file} against {self.reference}, {this_cpu()}, {rounds_text(self.options.rounds)}"
        table = markdown([table_row(measurement, self.options.rounds) for measurement in self])
        return "\n".join((title, "", table, "", *self.conclusions))


def check_output(out: Path) -> list[Path]:
    """Return the paths of ``FILES`` in ``out``. Raises UserError if one holds a file of the user's."""
    return [check_replaceable(out / name, is_signed, "Name another directory with out=.") for name in FILES]


def draw_conclusions(options: BenchmarkOptions, measurements: list[Measurement], stats: GraphStats) -> list[str]:
    """Return a sentence for each engine, and advice on what is faster if one gains nothing from zeros."""
    if options.rounds < ENOUGH_ROUNDS:
        return [describe_few_rounds(engine, measurements, options) for engine in options.engines]
    sentences = [describe_ratios(engine, measurements, stats, options.against) for engine in options.engines]
    no_gain = ("gains nothing", "gains hardly anything", "no difference")
    useless = any(part in sentence for sentence in sentences for part in no_gain)
    return sentences + [REMEDY] * (useless and not stats.integers)


def describe_ratios(engine: str, measurements: list[Measurement], stats: GraphStats, against: Path | None) -> str:
    """Return what the ratios of ``engine`` mean. ``stats``: of the file; ``against``: None for its dense copy.

    A ratio counts as a difference if 1 lies outside its quartiles; the figures are of those that do.
    """
    own = [measurement for measurement in measurements if measurement.engine == engine]
    differing = [measurement.ratio for measurement in own if differs(measurement)]
    ratios = [measurement.ratio for measurement in differing_or_all(own)]
    median = statistics.median(ratios)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} shapes"
    if len(ratios) == 1:
        [single] = differing_or_all(own)
        spread = f"quartiles {single.low:.2f} to {single.high:.2f}"
    figures = f"{median:.2f} ({spread})"
    if not against and stats.zeros == 0:
        return f"{engine}: {figures}; the file has no zeros and is compared with itself: any difference is noise."
    beside = f"{f'the file of {against}' if against else 'the same graph without zeros'} on {this_cpu().short}"
    if differing:
        shapes = f", in {len(differing)} of {len(own)} shapes; no difference measured in the others"
        speed = f"{engine}: {figures} times as fast as {beside}{shapes * (len(differing) < len(own))}"
        equal = EQUAL[0] <= median <= EQUAL[1]
    else:
        low, high = min(measurement.low for measurement in own), max(measurement.high for measurement in own)
        speed = f"{engine}: no difference measured (quartiles {low:.2f} to {high:.2f}) to {beside}"
        equal = EQUAL[0] <= low and high <= EQUAL[1]
    gains = "gains hardly anything" if differing else "gains nothing"
    if equal and stats.integers:
        return f"{speed}: it {gains} there from integers or zeros."
    if equal and stats.zeros > 0.05:
        return (
            f"{speed}: it {gains} from zeros ({stats.zeros:.1%} of what it multiplies by): it multiplies by them as "
            "by any other number."
        )
    return f"{speed}." if differing or equal else f"{speed}. More rounds (rounds=) narrow the quartiles."


def describe_few_rounds(engine: str, measurements: list[Measurement], options: BenchmarkOptions) -> str:
    """Return the ratios of ``engine`` after too few rounds to conclude anything from them."""
    ratios = [f"{each.ratio:.2f}" for each in measurements if each.engine == engine]
    beside = f"the file of {options.against}" if options.against else "the same graph without zeros"
    return (
        f"{engine}: {', '.join(ratios)} times as fast as {beside} on {this_cpu().short}, from "
        f"{rounds_text(options.rounds)}: too few to tell a difference from noise. Take rounds={ENOUGH_ROUNDS} or more."
    )


def rounds_text(rounds: int) -> str:
    """Return the number of rounds in words."""
    return f"{rounds} round{'s' * (rounds != 1)}"


def differing_or_all(measurements: list[Measurement]) -> list[Measurement]:
    """Return the measurements that show a difference; all of them if none does."""
    return [each for each in measurements if differs(each)] or measurements


def differs(measurement: Measurement) -> bool:
    """Return whether the file is faster or slower than the reference: 1 lies outside the ratio's quartiles."""
    return not measurement.low <= 1 <= measurement.high


def write_report_files(out: Path, measurements: Measurements) -> None:
    """Write ``benchmark.json`` and ``benchmark.svg`` into ``out``."""
    options, stats = measurements.options, measurements.stats
    content = {
        "file": str(options.file),
        "against": measurements.reference,
        **asdict(stats),
        "rounds": options.rounds,
        "machine": str(this_cpu()),
        "versions": engine_versions(options.engines),
        "cells": [asdict(measurement) for measurement in measurements],
        "says": measurements.conclusions,
        "by": SIGNATURE,
    }
    out.mkdir(parents=True, exist_ok=True)
    report, chart = check_output(out)  # again: the measurement may have taken minutes
    write_text(report, to_json(content, indent=2) + "\n")
    write_text(chart, draw_chart(options, stats, measurements))


def draw_chart(options: BenchmarkOptions, stats: GraphStats, measurements: list[Measurement]) -> str:
    """Return a bar for each measurement, as SVG."""
    bars = []
    for m in measurements:
        engine = engine_label(m)
        bars.append(Bar(f"{engine}, batch {m.batch}, {m.length} tokens", m.ratio, bar_label(m, options.rounds), engine))
    reference = "another file" if options.against else "dense fp32"
    title = f"Times as fast as {reference} on {this_cpu().short}; {stats.zeros:.0%} zeros"
    return bar_chart(title, bars, 1.0, "1.0")


def table_row(measurement: Measurement, rounds: int) -> dict[str, str]:
    """Return the cells of a row of the table, by column."""
    return {
        "engine": measurement.engine,
        "threads": str(measurement.threads),
        "batch": str(measurement.batch),
        "tokens": str(measurement.length),
        "ms a call": f"{measurement.ms:.2f}",
        "rows/s": f"{measurement.rows_per_second:.1f}",
        "reference ms": f"{measurement.reference_ms:.2f}",
        "ratio": f"{measurement.ratio:.2f}",
        "quartiles": f"{measurement.low:.2f} to {measurement.high:.2f}",
        "verdict": verdict(measurement, rounds),
    }


def verdict(measurement: Measurement, rounds: int) -> str:
    """Return ``faster`` or ``slower``, or that no difference was measured; nothing of that after too few rounds."""
    if rounds < ENOUGH_ROUNDS:
        return "too few rounds"
    if not differs(measurement):
        return "no difference measured"
    return "faster" if measurement.low > 1 else "slower"


def engine_label(measurement: Measurement) -> str:
    """Return the engine, and its number of threads if that is not 1."""
    return measurement.engine if measurement.threads == 1 else f"{measurement.engine} {measurement.threads}T"


def bar_label(measurement: Measurement, rounds: int) -> str:
    """Return the ratio, with the latency of a single row or the throughput of a larger batch."""
    latency, throughput = f"{measurement.ms:.1f} ms", f"{measurement.rows_per_second:.0f} rows/s"
    ratio = f"{measurement.ratio:.2f}x" if differs(measurement) or rounds < ENOUGH_ROUNDS else "no difference"
    return f"{ratio}, {latency if measurement.batch == 1 else throughput}"
