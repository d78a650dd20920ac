"""The table of what ``score`` and ``speed`` measured:  python -m benchmarks.embeddings.table RESULTS.json [--svg FILE]

A row for each label: the mean over its seeds, and each seed's score in parentheses. The first label is fp32. ``--svg``:
a picture of the speed at one row of 128 tokens against the share of fp32's scores, with the Pareto front.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks.embeddings.entries import key_parts
from benchmarks.embeddings.picture import Point, draw
from benchmarks.embeddings.results import read_results
from sparse_xp.text import markdown

#: scores that the table also gives as a share of the fp32 score
SCORES = {"spearman": "STS-B, Spearman", "mrr_10": "SQuAD, MRR@10"}
#: the shape on the picture's axis
SHAPE = "1x128"


def main() -> None:
    """Print the table, and draw the picture if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    results = read_results(options.results)
    print(markdown(make_rows(results)))
    machine = results.get("machine")
    if machine:
        print(f"\n{machine['cpu']}, onnxruntime {machine['onnxruntime']}, {machine['rounds']} rounds in turn")
    if options.svg:
        options.svg.write_text(draw(make_points(results), SCORES), encoding="utf-8")


def by_label(part: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the values of each label, a list by seed, in the order of the labels."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in sorted(part, key=lambda name: key_parts(name)[1] or 0):
        found.setdefault(key_parts(name)[0], []).append(part[name])
    return {label: found[label] for label in dict.fromkeys(key_parts(name)[0] for name in part)}


def make_rows(results: dict[str, Any]) -> list[dict[str, str]]:
    """Return the rows of the table: cells by column."""
    scores, speeds = by_label(results["scores"]), by_label(results.get("speed", {}))
    shapes = list(dict.fromkeys(shape for runs in speeds.values() for run in runs for shape in run))
    reference = next(iter(scores.values()))
    rows = []
    for label, runs in scores.items():
        row = {"file": label, "MB": join_values([run["megabytes"] for run in runs if "megabytes" in run], seeds=False)}
        for key, title in SCORES.items():
            row[title] = join_values([run[key] for run in runs])
            row[f"{title}, of fp32"] = f"{recovery(runs, reference, key):.1f} %"
        row["overlap@10"] = join_values([run["overlap_10"] for run in runs])
        for shape in shapes:
            row[f"times fp32, {shape}"] = join_values(
                [run[shape]["ratio"] for run in speeds.get(label, [])], seeds=False
            )
        rows.append(row)
    return rows


def join_values(values: list[float], seeds: bool = True) -> str:
    """Return the mean, with each of several values in parentheses if ``seeds``; empty for no values."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ({', '.join(f'{value:.2f}' for value in values)})" if seeds and len(values) > 1 else mean


def recovery(runs: list[dict[str, Any]], reference: list[dict[str, Any]], key: str) -> float:
    """Return the mean score of runs in per cent of the reference's."""
    own, other = (statistics.mean(float(run[key]) for run in each) for each in (runs, reference))
    return 100 * own / other


def make_points(results: dict[str, Any]) -> list[Point]:
    """Return what the picture shows: the labels that were timed."""
    scores, speeds = by_label(results["scores"]), by_label(results.get("speed", {}))
    reference = next(iter(scores.values()))
    return [
        Point(
            label,
            statistics.mean(run[SHAPE]["ratio"] for run in speeds[label]),
            {key: recovery(runs, reference, key) for key in SCORES},
        )
        for label, runs in scores.items()
        if label in speeds
    ]


if __name__ == "__main__":
    main()
