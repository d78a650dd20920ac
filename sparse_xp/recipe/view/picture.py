"""``show --png``: learning rate and sparsity over the epochs, with the spans of distillation and quantization.

With ``--run`` also what a run of the recipe measured, as dots on the curves, and its loss under them.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from sparse_xp.errors import UserError
from sparse_xp.files import WRITTEN, claim, is_signed, write_bytes
from sparse_xp.history import History
from sparse_xp.modifiers import Distillation, PerLayerDistillation, Quantization
from sparse_xp.recipe.view.timeline import HOLDS, Timeline

#: points of a curve; the steps of a schedule stay visible
POINTS = 2000
SPANS = {Distillation: "tab:green", PerLayerDistillation: "tab:olive", Quantization: "tab:blue"}


def read_history(run: Path) -> list[dict[str, Any]]:
    """The logged steps of a run. Raises UserError if it has none."""
    lines = [entry for entry in History(run / "history.jsonl", 1).read() if "loss" in entry]
    if not lines:
        raise UserError(f"--run {run}: it has no history.jsonl with a logged step in it.")
    return lines


def steps_per_epoch(run: Path) -> int:
    """How many optimizer steps an epoch of a run has."""
    last = read_history(run)[-1]
    return round(last["step"] / last["epoch"])


def draw(line: Timeline, path: Path, run: Path | None = None) -> None:
    """Write the picture to ``path``; ``run``: the directory of a run whose history is drawn over it.

    Raises UserError if it cannot be written, there is no history, or matplotlib is not there.
    """
    place = claim(path, is_signed, "Name another file with --png.")
    measured = read_history(run) if run else []
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, no state
    except ImportError as error:
        raise UserError("--png needs matplotlib: pip install 'sparse-xp[plot]'.") from error
    figure = Figure(figsize=(9, 7 if run else 4.5), layout="constrained")
    left, *below = figure.subplots(2, sharex=True, height_ratios=[2, 1]) if run else [figure.subplots()]
    right = left.twinx()
    steps = sorted({round(i * (line.clock.total_steps - 1) / (POINTS - 1)) for i in range(POINTS)})
    epochs = [line.clock.epoch(step) for step in steps]
    rates = [line.rate_at(step) for step in steps]
    known = [(x, y) for x, y in zip(epochs, rates, strict=True) if y is not None]
    left.plot(*zip(*known, strict=True), color="tab:orange", label="learning rate") if known else None
    for name in line.levels:
        levels = [line.level(name, step) for step in steps]
        shown = [float("nan") if level is None else level for level in levels]  # decided by the weights: no curve
        if any(level is not None for level in levels):
            right.plot(epochs, shown, drawstyle="steps-post", label=f"sparsity: {name.rpartition('.')[2]}")
    for kind, color in SPANS.items():
        for name in line.of(kind):
            for start, end, char in line.spans(name):
                what = f"{name.rpartition('.')[2]}, frozen" if char == HOLDS else name.rpartition(".")[2]
                left.axvspan(start, end, color=color, alpha=0.2 if char == HOLDS else 0.1, label=what)
    for key, axis, color in (("lr", left, "tab:red"), ("sparsity", right, "black")):
        # A line is written when its step is over; what holds in the step held from its beginning.
        dots = [(entry["epoch"] * (1 - 1 / entry["step"]), entry[key]) for entry in measured if key in entry]
        if dots:
            axis.plot(*zip(*dots, strict=True), ".", color=color, markersize=4, label=f"{key} of the run")
    for axis in below:
        losses = [(entry["epoch"], entry["loss"]) for entry in measured if "loss" in entry]
        axis.plot(*zip(*losses, strict=True), color="tab:gray", linewidth=0.8, label="loss of the run")
        axis.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    left.set(title=line.name, ylabel="learning rate", xlim=(0, line.clock.end))
    left.set_xlabel("" if below else "epoch")
    left.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    left.set_ylim(bottom=0)
    right.set(ylabel="scheduled sparsity", ylim=(0, 1.02))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    try:
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=120, metadata={"Software": WRITTEN})
        write_bytes(place, drawn.getvalue())
    except OSError as error:
        raise UserError(f"--png {path}: {error.strerror or error}.") from error
