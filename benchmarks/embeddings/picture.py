"""The picture of the table: speed against the share of fp32's scores, with the Pareto front, as SVG by matplotlib."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from sparse_xp.report.plots import SETTINGS, pareto, to_svg

#: markers by turns: with their colors they tell twenty files apart
MARKERS = "oosD^vP*"


@dataclass(frozen=True)
class Point:
    """A file. ``speed``: times as fast as fp32; ``recovery``: per cent of fp32's score, by score."""

    label: str
    speed: float
    recovery: dict[str, float]


def draw(points: list[Point], scores: dict[str, str]) -> str:
    """Return a plot for each of the ``scores`` (title by key), side by side with one legend, as SVG."""
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(
            1, len(scores), figsize=(9.4, 3.8), layout="constrained", squeeze=False, sharey=True
        )
        for place, (key, title) in zip(axes[0], scores.items(), strict=True):
            draw_points(place, points, key)
            place.set_title(title)
        axes[0][0].set_ylabel("per cent of fp32's score")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
        return to_svg(figure)


def draw_points(axes: Axes, points: list[Point], key: str) -> None:
    """Draw the points of one score and their Pareto front."""
    for number, point in enumerate(points):
        marker = MARKERS[number // 10 * 4 + number % 4]
        axes.plot(point.speed, point.recovery[key], marker, color=f"C{number % 10}", ms=6, label=point.label)
    front = pareto([(-point.speed, point.recovery[key]) for point in points])
    axes.plot([-cost for cost, _ in front], [value for _, value in front], color="#9aa5b1", lw=1, zorder=0)
    axes.set_xlabel("times as fast as fp32, one row of 128 tokens")
