"""``show --png``: learning rate and sparsity over the epochs, with the spans of distillation and quantization."""

from __future__ import annotations

from pathlib import Path

from sparse_xp.errors import UserError
from sparse_xp.modifiers import Distillation, PerLayerDistillation, Quantization
from sparse_xp.recipe.timeline import HOLDS, Timeline

#: points of a curve; the steps of a schedule stay visible
POINTS = 2000
SPANS = {Distillation: "tab:green", PerLayerDistillation: "tab:olive", Quantization: "tab:blue"}


def draw(line: Timeline, path: Path) -> None:
    """Write the picture to ``path``. Raises UserError if it cannot be written, or matplotlib is not there."""
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, no state
    except ImportError as error:
        raise UserError("--png needs matplotlib: pip install 'sparse-xp[plot]'.") from error
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    steps = sorted({round(i * (line.clock.total_steps - 1) / (POINTS - 1)) for i in range(POINTS)})
    epochs = [line.clock.epoch(step) for step in steps]
    rates = [line.rate_at(step) for step in steps]
    known = [(x, y) for x, y in zip(epochs, rates, strict=True) if y is not None]
    left.plot(*zip(*known, strict=True), color="tab:orange", label="learning rate") if known else None
    for name in line.levels:
        levels = [line.level(name, step) for step in steps]
        shown = [float("nan") if level is None else level for level in levels]  # decided by the weights: no curve
        right.plot(epochs, shown, drawstyle="steps-post", label=f"sparsity: {name.rpartition('.')[2]}")
    for kind, color in SPANS.items():
        for name in line.of(kind):
            for start, end, char in line.spans(name):
                what = f"{name.rpartition('.')[2]}, frozen" if char == HOLDS else name.rpartition(".")[2]
                left.axvspan(start, end, color=color, alpha=0.2 if char == HOLDS else 0.1, label=what)
    left.set(title=line.name, xlabel="epoch", ylabel="learning rate", xlim=(0, line.clock.end))
    left.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    left.set_ylim(bottom=0)
    right.set(ylabel="scheduled sparsity", ylim=(0, 1.02))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    try:
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise UserError(f"--png {path}: {error.strerror or error}.") from error
