"""Figures of the page as SVG text, by matplotlib (extra ``plot``)."""

from __future__ import annotations

import io
import re
import textwrap
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

from sparse_xp.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sparse_xp.report.table import Line
    from sparse_xp.result import Result

#: the most runs whose curves, or layers, are drawn: more cannot be told apart
MOST = 12
AXES = {
    "zeros": ("zeros of the encoder, per cent", lambda line: 100 * line.average("encoder")),
    "size": ("ONNX file compressed, MB", lambda line: line.average("compressed_bytes") / 1e6),
    # each was measured beside its reference, the runs at other times: milliseconds of two runs do not compare
    "latency": ("per cent of the reference's time for one row", lambda it: it.latency and 100 / it.latency.ratio),
}
SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sparse_xp",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e9ee",
    "axes.axisbelow": True,
}


def svg_of(figure: Figure) -> str:
    """The SVG element of a figure, which is closed."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    drawn = text.getvalue()
    # Several figures stand in one page, where ids are shared: each gets its own.
    mark = f"f{zlib.crc32(drawn.encode())}"
    drawn = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{mark}-", drawn)
    return drawn[drawn.index("<svg") :]


def short(name: str) -> str:
    """As much of a name as a figure has room for: whole words."""
    return textwrap.shorten(name, 32, placeholder=" ...")


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, score) the points that no other beats in both, by cost."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def against(lines: Sequence[Line], axis: str) -> list[tuple[str, str]]:
    """(caption, SVG) for each task: score against zeros, size or latency; of the latter two with the Pareto front."""
    heading, value = AXES[axis]
    found = []
    for task in dict.fromkeys(line.task for line in lines):
        measured = ((line, value(line), line.mean) for line in lines if line.task == task)
        points = [(line, float(x), float(y)) for line, x, y in measured if x is not None and y is not None]
        if len(points) < 2:
            continue
        with plt.rc_context(SETTINGS):
            figure, axes = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
            for number, (line, x, y) in enumerate(points):
                axes.errorbar(x, y, yerr=line.std or 0.0, fmt="o", color=f"C{number % 10}", capsize=3, ms=5)
                note = short(line.cell) + (" *" if line.marks else "")
                axes.annotate(note, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
                if line.published and axis == "zeros" and not line.marks:
                    axes.plot(x, line.published.published, "x", color=f"C{number % 10}", ms=6)
            if axis != "zeros":
                front = pareto([(x, y) for _, x, y in points])
                axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color="#9aa5b1", lw=1, zorder=0)
            axes.margins(x=0.22, y=0.18)
            axes.set_xlabel(heading)
            axes.set_ylabel(points[0][0].metric)
            found.append((task + ("" if axis == "zeros" else "; the line is the Pareto front"), svg_of(figure)))
    return found


def courses(runs: Sequence[tuple[str, Path]]) -> list[tuple[str, str]]:
    """(caption, SVG): loss, learning rate and sparsity of the runs over their epochs."""
    read = [
        (name, [line for line in History(place / "history.jsonl", 1).read() if "loss" in line]) for name, place in runs
    ]
    color = {name: f"C{number % 10}" for number, (name, _) in enumerate(read)}  # a run's, in every picture
    found = []
    for key, caption in (("loss", "loss"), ("lr", "learning rate"), ("sparsity", "zeros of what is pruned")):
        drawn = [(name, [(s["epoch"], s[key]) for s in steps if key in s]) for name, steps in read]
        drawn = [(name, points) for name, points in drawn if points]
        if not drawn:
            continue
        with plt.rc_context(SETTINGS):
            figure, axes = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
            for name, points in drawn:
                axes.plot(*zip(*points, strict=True), lw=1.2, color=color[name], label=short(name))
            axes.set_xlabel("epoch")
            axes.set_ylabel(caption)
            axes.legend(fontsize=7, frameon=False)
            found.append((caption, svg_of(figure)))
    return found


def layers(runs: Sequence[tuple[str, Result]]) -> list[tuple[str, str]]:
    """(caption, SVG): for each run that has zeros, a row; for each of its matrices in order, a square."""
    drawn = [(name, list(result.sparsity.layers.values())) for name, result in runs if result.sparsity.prunable > 0]
    if not drawn:
        return []
    width = max(len(values) for _, values in drawn)
    rows = [[100 * value for value in values] + [float("nan")] * (width - len(values)) for _, values in drawn]
    with plt.rc_context(SETTINGS | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(9.4, 0.9 + 0.28 * len(rows)), layout="constrained")
        image = axes.imshow(rows, aspect="auto", cmap="viridis", vmin=0, vmax=100)
        axes.set_yticks(range(len(drawn)), [short(name) for name, _ in drawn])
        axes.set_xlabel("matrices of the encoder, from the first layer to the last")
        figure.colorbar(image, label="per cent zero")
        return [("per cent of zeros of each matrix", svg_of(figure))]
