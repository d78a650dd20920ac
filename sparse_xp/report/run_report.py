"""Tables and reports: pure functions of the files that runs leave. ``python -m sparse_xp.report outputs``."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from sparse_xp.files import (
    replace_signed,
)
from sparse_xp.result import Result, row
from sparse_xp.text import markdown, rows_used


def table(found: list[tuple[Path, Result]]) -> str:
    """All runs, one row each, the columns in which every row is equal moved into a line above.

    Where rows differ in what no column tells (``sparsity=obert``), the names of the directories are a column too.
    """
    found = sorted(found, key=lambda pair: told(pair[1]))
    rows = [row(result) for _, result in found]
    if len({told(result) for _, result in found}) < len(found):
        places = [place.resolve() for place, _ in found]
        top = os.path.commonpath([place.parent for place in places])
        rows = [{"run": os.path.relpath(place, top)} | each for place, each in zip(places, rows, strict=True)]
    might = ("task", "model", "quantization", "seed", "train rows", "epochs")
    same = [c for c in might if len({r[c] for r in rows}) == 1]
    head = ", ".join(f"{c} {rows[0][c]}" for c in same if (c, rows[0][c]) != ("quantization", "none"))
    return f"{head}\n\n" * bool(head) + markdown([{c: v for c, v in r.items() if c not in same} for r in rows])


def told(result: Result) -> tuple[Any, ...]:
    """What the columns of the table tell of how a run was made, in the order of its rows."""
    made = result.training
    return (
        *(result.task, result.model, result.recipe, not result.teacher, result.seed),
        *(result.quantization or "", made.train_rows, made.epochs),
    )


def find_with_places(places: list[Path]) -> list[tuple[Path, Result]]:
    """The results in the given run directories, or anywhere below the given ones, each with its directory.

    Raises UserError for a file of another version.
    """
    paths = {
        p
        for place in places
        for p in ([place / "result.json"] if (place / "result.json").exists() else place.rglob("result.json"))
    }
    found = []
    for path in sorted(paths):
        found.append((path.parent, Result.read(path)))
    return found


def write_report(directory: Path, result: Result, history: list[dict[str, Any]]) -> None:
    """``report.md``: the run as a person would want to read it."""
    replace_signed(directory / "report.md", report(result, history) + "\n")


def report(result: Result, history: list[dict[str, Any]]) -> str:
    """The text of ``report.md``."""
    trained, deployed, zeros, origin = result.training, result.deployment, result.sparsity, result.provenance
    scores = "  ".join(f"**{name} {value:.2f}**" for name, value in deployed.metrics.items())
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    layers = markdown([{"weight": name, "zeros": f"{share:.2%}"} for name, share in zeros.layers.items()])
    integers = f"\n- in 8-bit integers: quantization={result.quantization}" if result.quantization else ""
    if deployed.portable is not None and deployed.integers:
        integers += (
            "\n- computes the same in every session on every x86 CPU"
            if deployed.portable
            else "\n- can answer differently on x86 CPUs without VNNI: the card has the line that a session needs there"
        )
    return f"""# {result.recipe} on {result.task}, {result.model}, seed {result.seed}

{scores} on the exported file, {rows_used(trained.eval_rows, trained.eval_rows_of)} rows.

- zeros: {zeros.prunable:.2%} of the prunable weights, {zeros.encoder:.2%} of the encoder,
  {zeros.model:.2%} of the model{f"; {zeros.removed.told()}" if zeros.removed else ""}
- `deployment/model.onnx`: {deployed.bytes / 1e6:.2f} MB, {deployed.compressed_bytes / 1e6:.2f} MB under \
{deployed.compression};
  largest difference of a logit to PyTorch {deployed.max_abs_diff:.1e}
- trained on {rows_used(trained.train_rows, trained.train_rows_of)} rows for {trained.epochs:g} epochs:
  {trained.steps} steps, {trained.seconds:.0f} s,
  {trained.samples_per_second:.1f} features/s on {trained.device} in {trained.precision}
- teacher: {result.teacher or "none"}{integers}
- unstructured zeros make a file smaller once it is compressed; onnxruntime does not compute faster with them

## Course

{course([line for line in history if "loss" in line])}

## Evaluations

{evaluations([line for line in history if "metrics" in line], trained.best_step)}

## Again

    {origin.command}

git {origin.git or "unknown"}, config {origin.config_hash}, data {origin.data_fingerprint}, {versions}

## Zeros by weight

{layers}
"""


def spark(values: list[float], width: int = 60) -> str:
    """A curve drawn with block characters: the means of ``width`` stretches between the smallest and the largest."""
    size = max(1, len(values) / width)
    means = []
    for i in range(min(width, len(values))):
        stretch = values[int(i * size) : max(int(i * size) + 1, int((i + 1) * size))]
        means.append(sum(stretch) / len(stretch))
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    span = high - low or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (mean - low) / span)] if math.isfinite(mean) else "?" for mean in means)


def course(steps: list[dict[str, Any]]) -> str:
    """The curves of the run, and ten of the logged steps as a table."""
    picked = [steps[round(i * (len(steps) - 1) / 9)] for i in range(10)] if len(steps) > 10 else steps
    known = ("loss", "loss_task", "loss_distillation", "lr", "sparsity", "removed", "speedup", "quantized", "grad_norm")
    names = [name for name in known if any(name in step for step in steps)]
    curves = [(name, [step[name] for step in steps if name in step]) for name in names]
    drawn = "\n".join(f"    {name:<18} {spark(v)}  {v[0]:.3g} to {v[-1]:.3g}" for name, v in curves)
    return f"{drawn}\n\n" + markdown(
        [
            {"epoch": f"{s['epoch']:.2f}", "step": str(s["step"])} | {n: f"{s[n]:.4g}" if n in s else "" for n in names}
            for s in picked
        ]
    )


def evaluations(lines: list[dict[str, Any]], best_step: int) -> str:
    """Every evaluation as a row; the one that was kept is marked."""
    return markdown(
        [
            {"epoch": f"{line['epoch']:.2f}", "step": str(line["step"])}
            | {name: f"{value:.2f}" for name, value in line["metrics"].items()}
            | {"recipe complete": "yes" if line["valid"] else "no", "": "kept" if line["step"] == best_step else ""}
            for line in lines
        ]
    )
