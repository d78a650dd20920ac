"""Figures of the page as SVG text, by matplotlib (extra ``plot``)."""

from __future__ import annotations

import io
import re
import textwrap
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sparse_xp.history import History
from sparse_xp.report.compare import ComparedRow
from sparse_xp.result import Result

#: the most runs in one figure: with more their colours repeat
MAX_RUNS = 12
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
#: the keys of history.jsonl that are drawn, each with its caption
CURVES = {"loss": "loss", "lr": "learning rate", "sparsity": "zeros of what is pruned"}


def to_svg(figure: Figure) -> str:
    """Return the SVG element of a figure, and close the figure."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    # Several figures stand in one page and would share their ids, so each figure's ids get a prefix of their own.
    prefix = f"f{zlib.crc32(svg.encode())}"
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    return svg[svg.index("<svg") :]


def shorten_label(name: str) -> str:
    """Return a name cut, between words, to what a figure has room for."""
    return textwrap.shorten(name, 32, placeholder=" ...")


def encoder_zeros(row: ComparedRow) -> float | None:
    """Return the zeros of the encoder in per cent."""
    fraction = row.mean_of(lambda result: result.sparsity.encoder)
    return None if fraction is None else 100 * fraction


def compressed_megabytes(row: ComparedRow) -> float | None:
    """Return the compressed size of the ONNX file in MB."""
    size = row.mean_of(lambda result: result.deployment.compressed_bytes)
    return None if size is None else size / 1e6


def relative_time(row: ComparedRow) -> float | None:
    """Return the time for one row in per cent of the reference's.

    Each run was measured beside its reference, but the runs at different times: their milliseconds do not compare.
    """
    return None if row.latency is None else 100 / row.latency.ratio


#: what a score is plotted against: the label of the axis, and the value of a row
AXES: dict[str, tuple[str, Callable[[ComparedRow], float | None]]] = {
    "zeros": ("zeros of the encoder, per cent", encoder_zeros),
    "size": ("ONNX file compressed, MB", compressed_megabytes),
    "latency": ("per cent of the reference's time for one row", relative_time),
}


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return, by cost, the points (cost, score) that no other point beats in both."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def scatter_plots(rows: Sequence[ComparedRow], axis: str) -> list[tuple[str, str]]:
    """Return (caption, SVG) for each task: score against ``zeros``, ``size`` or ``latency``.

    A task with fewer than two points is left out. Sizes and latencies are costs: these plots have the Pareto front.
    """
    value = AXES[axis][1]
    figures = []
    for task in dict.fromkeys(row.task for row in rows):
        values = ((row, value(row), row.mean) for row in rows if row.task == task)
        points = [(row, float(x), float(y)) for row, x, y in values if x is not None and y is not None]
        if len(points) > 1:
            caption = task + ("" if axis == "zeros" else "; the line is the Pareto front")
            figures.append((caption, scatter_plot(points, axis)))
    return figures


def scatter_plot(points: Sequence[tuple[ComparedRow, float, float]], axis: str) -> str:
    """Return the plot of one task as SVG. ``points``: the rows with their x and y."""
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
        for number, (row, x, y) in enumerate(points):
            color = f"C{number % 10}"
            axes.errorbar(x, y, yerr=row.std or 0.0, fmt="o", color=color, capsize=3, ms=5)
            label = shorten_label(row.cell) + (" *" if row.caveats else "")
            axes.annotate(label, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
            if row.published and axis == "zeros" and not row.caveats:
                axes.plot(x, row.published.published, "x", color=color, ms=6)
        if axis != "zeros":
            front = pareto([(x, y) for _, x, y in points])
            axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color="#9aa5b1", lw=1, zorder=0)
        axes.margins(x=0.22, y=0.18)
        axes.set_xlabel(AXES[axis][0])
        axes.set_ylabel(points[0][0].metric)
        return to_svg(figure)


def training_curves(runs: Sequence[tuple[str, Path]]) -> list[tuple[str, str]]:
    """Return (caption, SVG): loss, learning rate and sparsity of runs over their epochs.

    ``runs``: the name and directory of each. A curve that no run has logged is left out.
    """
    steps_of = {
        number: [line for line in History(directory / "history.jsonl", 1).read() if "loss" in line]
        for number, (_, directory) in enumerate(runs)
    }
    figures = []
    for key, caption in CURVES.items():
        with plt.rc_context(SETTINGS):
            figure, axes = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
            for number, (name, _) in enumerate(runs):  # the number keeps a run's color the same in every figure
                if points := [(step["epoch"], step[key]) for step in steps_of[number] if key in step]:
                    color, label = f"C{number % 10}", shorten_label(name)
                    axes.plot(*zip(*points, strict=True), lw=1.2, color=color, label=label)
            if not axes.lines:
                plt.close(figure)
                continue
            axes.set_xlabel("epoch")
            axes.set_ylabel(caption)
            axes.legend(fontsize=7, frameon=False)
            figures.append((caption, to_svg(figure)))
    return figures


def sparsity_maps(runs: Sequence[tuple[str, Result]]) -> list[tuple[str, str]]:
    """Return (caption, SVG): a row of squares for each run that has zeros, a square for each of its matrices."""
    pruned = [(name, list(result.sparsity.layers.values())) for name, result in runs if result.sparsity.prunable > 0]
    if not pruned:
        return []
    width = max(len(fractions) for _, fractions in pruned)
    grid = [[100 * value for value in fractions] + [float("nan")] * (width - len(fractions)) for _, fractions in pruned]
    with plt.rc_context(SETTINGS | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(9.4, 0.9 + 0.28 * len(grid)), layout="constrained")
        image = axes.imshow(grid, aspect="auto", cmap="viridis", vmin=0, vmax=100)
        axes.set_yticks(range(len(pruned)), [shorten_label(name) for name, _ in pruned])
        axes.set_xlabel("matrices of the encoder, from the first layer to the last")
        figure.colorbar(image, label="per cent zero")
        return [("per cent of zeros of each matrix", to_svg(figure))]
