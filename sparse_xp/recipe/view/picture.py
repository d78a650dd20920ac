"""``show --png``: learning rate and sparsity over the epochs, with the spans of distillation and quantization.

With ``--run`` also what a run of the recipe measured, as dots on the curves, and its loss under them.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.errors import UserError
from sparse_xp.files.ownership import check_replaceable
from sparse_xp.files.signed import SIGNATURE, is_signed
from sparse_xp.files.writing import write_bytes
from sparse_xp.history import read_history
from sparse_xp.modifiers.display import HOLDS
from sparse_xp.recipe.view.timeline import Timeline

if TYPE_CHECKING:
    # matplotlib is an extra of the package: it is imported when a picture is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: points of a curve; the steps of a schedule stay visible
POINTS = 2000


def logged_steps(run: Path) -> list[dict[str, Any]]:
    """Return the training steps in a run's history.jsonl. Raises UserError if it has none."""
    path = run / "history.jsonl"
    lines = read_history(path, least=0) if os.path.lexists(path) else []
    steps = [line for line in lines if "loss" in line]
    if not steps:
        raise UserError(f"--run {run}: it has no history.jsonl with a logged step in it.")
    return steps


def measured_steps_per_epoch(run: Path) -> int:
    """Return how many optimizer steps an epoch of a run has. Raises UserError if it has logged none."""
    last = logged_steps(run)[-1]
    step, epoch = float(last["step"]), float(last["epoch"])
    return round(step / epoch)


def draw(line: Timeline, path: Path, run: Path | None = None) -> None:
    """Write the picture to ``path``; ``run``: the directory of a run whose history is drawn over it.

    Raises UserError if the file cannot be written, the run has no history, or matplotlib is not installed.
    """
    target = check_replaceable(path, is_signed, "Name another file with --png.")
    measured = logged_steps(run) if run else []
    figure = make_figure(line, measured)
    try:
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=120, metadata={"Software": SIGNATURE})
        write_bytes(target, png.getvalue())
    except OSError as error:
        raise UserError(f"--png {path}: {error.strerror or error}.") from error


def make_figure(line: Timeline, measured: list[dict[str, Any]]) -> Figure:
    """Return the figure: rate and sparsity above, and below the measured loss if there is any."""
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, no state
    except ImportError as error:
        raise UserError("--png needs matplotlib: pip install 'sparse-xp[plot]'.") from error
    figure = Figure(figsize=(9, 7 if measured else 4.5), layout="constrained")
    if measured:
        rate_axes, loss_axes = figure.subplots(2, sharex=True, height_ratios=[2, 1])
        draw_loss(loss_axes, measured)
    else:
        rate_axes = figure.subplots()
        rate_axes.set_xlabel("epoch")
    sparsity_axes = rate_axes.twinx()
    draw_schedules(rate_axes, sparsity_axes, line)
    draw_spans(rate_axes, line)
    draw_measured(rate_axes, sparsity_axes, measured)
    rate_axes.set(title=line.name, ylabel="learning rate", xlim=(0, line.clock.end))
    rate_axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rate_axes.set_ylim(bottom=0)
    sparsity_axes.set(ylabel="scheduled sparsity", ylim=(0, 1.02))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_schedules(rate_axes: Axes, sparsity_axes: Axes, line: Timeline) -> None:
    """Draw the learning rate, and the scheduled sparsity of each modifier that prunes."""
    steps = sorted({round(i * (line.clock.total_steps - 1) / (POINTS - 1)) for i in range(POINTS)})
    epochs = [line.clock.epoch(step) for step in steps]
    rates = [line.rate_at(step) for step in steps]
    known = [(epoch, rate) for epoch, rate in zip(epochs, rates, strict=True) if rate is not None]
    if known:
        rate_axes.plot(*zip(*known, strict=True), color="tab:orange", label="learning rate")
    for name in line.levels:
        levels = [line.level(name, step) for step in steps]
        if any(level is not None for level in levels):
            drawn = [float("nan") if level is None else level for level in levels]  # the weights decide: no curve
            label = f"sparsity: {name.rpartition('.')[2]}"
            sparsity_axes.plot(epochs, drawn, drawstyle="steps-post", label=label)


def draw_spans(axes: Axes, line: Timeline) -> None:
    """Shade the epochs in which modifiers with a ``span_colour`` act; paler where they only hold what they did."""
    for name, modifier in line.modifiers.items():
        if modifier.display.span_colour is None:
            continue
        for start, end, mark in modifier.spans(line.clock):
            label = f"{name.rpartition('.')[2]}, frozen" if mark == HOLDS else name.rpartition(".")[2]
            alpha = 0.2 if mark == HOLDS else 0.1
            axes.axvspan(start, end, color=modifier.display.span_colour, alpha=alpha, label=label)


def draw_measured(rate_axes: Axes, sparsity_axes: Axes, measured: list[dict[str, Any]]) -> None:
    """Draw what a run logged as dots over the schedules."""
    for key, axes, colour in (("lr", rate_axes, "tab:red"), ("sparsity", sparsity_axes, "black")):
        # A line is written when its step is over; what holds in the step held from its beginning.
        dots = [(entry["epoch"] * (1 - 1 / entry["step"]), entry[key]) for entry in measured if key in entry]
        if dots:
            axes.plot(*zip(*dots, strict=True), ".", color=colour, markersize=4, label=f"{key} of the run")


def draw_loss(axes: Axes, measured: list[dict[str, Any]]) -> None:
    """Draw the loss that a run logged."""
    losses = [(entry["epoch"], entry["loss"]) for entry in measured]
    axes.plot(*zip(*losses, strict=True), color="tab:gray", linewidth=0.8, label="loss of the run")
    axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
