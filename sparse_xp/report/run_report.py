"""``report.md`` of one run: its results, curves and evaluations, and the command to reproduce it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sparse_xp.files.signed import replace_signed
from sparse_xp.modifiers import MODIFIERS
from sparse_xp.modifiers.display import logged_numbers
from sparse_xp.result import Result, Training
from sparse_xp.text import markdown, rows_used, without_labels

#: the numbers of a training step that are shown, in the order of their columns
STEP_COLUMNS = [
    number.name for number in logged_numbers(kind.logged for kind in MODIFIERS.values()) if number.in_report
]


def write_report(directory: Path, result: Result, history: list[dict[str, Any]]) -> None:
    """Write ``report.md``. ``history``: the lines of ``history.jsonl``."""
    replace_signed(directory / "report.md", report_text(result, history) + "\n")


def report_text(result: Result, history: list[dict[str, Any]]) -> str:
    """Return the text of ``report.md``."""
    training, deployment, sparsity, origin = result.training, result.deployment, result.sparsity, result.provenance
    scores = "  ".join(f"**{name} {value:.2f}**" for name, value in deployment.metrics.items())
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    layers = markdown([{"weight": name, "zeros": f"{share:.2%}"} for name, share in sparsity.layers.items()])
    return f"""# {result.recipe} on {result.task}, {result.model}, seed {result.seed}

{scores} on the exported file, {rows_used(training.eval_rows, training.eval_rows_of)} rows.

- zeros: {sparsity.prunable:.2%} of the prunable weights, {sparsity.encoder:.2%} of the encoder,
  {sparsity.model:.2%} of the model{f"; {sparsity.removed.description}" if sparsity.removed else ""}
{compression_lines(result)}\
- `deployment/model.onnx`: {deployment.bytes / 1e6:.2f} MB, {deployment.compressed_bytes / 1e6:.2f} MB under \
{deployment.compression};
  largest difference of a logit to PyTorch {deployment.max_abs_diff:.1e}
- trained on {rows_used(training.train_rows, training.train_rows_of)} rows\
{without_labels(training.unlabeled_rows)} for {training.epochs:g} epochs:
  {training.steps} steps, {training.seconds:.0f} s,
  {training.samples_per_second:.1f} features/s on {training.device} in {training.precision}\
{skipped_line(training)}
- teacher: {result.teacher or "none"}{integer_lines(result)}{zeros_line(result)}

## Course

{learning_curves([line for line in history if "loss" in line])}

## Evaluations

{evaluations([line for line in history if "metrics" in line], training.best_step)}

## Again

    {origin.command}

git {origin.git or "unknown"}, config {origin.config_hash}, data {origin.data_fingerprint}, {versions}

## Zeros by weight

{layers}
"""


def skipped_line(training: Training) -> str:
    """Return a line on the steps that fp16 has skipped; nothing if they are fewer than 1 %."""
    share = training.skipped / max(1, training.steps)
    if share < 0.01:
        return ""
    skipped = f"{training.skipped} of {training.steps} steps ({share:.1%})"
    return f"\n- {skipped} changed no weight: gradients overflowed in fp16"


def compression_lines(result: Result) -> str:
    """Return the lines of the list about compression; nothing for a result of an earlier version."""
    if result.compression is None:
        return ""
    parts = (("the encoder's matrices", result.compression.encoder), ("the whole model", result.compression.model))
    return "".join(
        f"- compression of {name}: {part.ratio:.1f} = {part.dense_bytes / 1e6:.2f} MB of the dense model in fp32 / "
        f"{part.nonzero_bytes / 1e6:.2f} MB of nonzero weights;\n  {part.arithmetic};\n  {part.masked_ratio:.1f} with "
        "a bit for each weight that says whether it is zero\n"
        for name, part in parts
    )


def zeros_line(result: Result) -> str:
    """Return a line on what the zeros of the model are good for; nothing for a model without zeros."""
    if result.sparsity.prunable < 0.01:
        return ""
    line = "unstructured zeros make a file smaller once it is compressed; onnxruntime does not compute faster with them"
    return f"\n- {line}"


def integer_lines(result: Result) -> str:
    """Return the lines of the list about 8-bit integers; nothing for a model in floating point."""
    lines = f"\n- in 8-bit integers: quantization={result.quantization}" if result.quantization else ""
    if result.deployment.portable is None or not result.deployment.integers:
        return lines
    if result.deployment.portable:
        return lines + "\n- computes the same in every session on every x86 CPU"
    return lines + (
        "\n- can answer differently on x86 CPUs without VNNI: the card has the line that a session needs there"
    )


def sparkline(values: list[float], width: int = 60) -> str:
    """Return a curve of block characters.

    The values are cut into ``width`` parts, and the mean of each part is drawn between the smallest and the largest
    mean. A part that is not finite is a ``?``.
    """
    size = max(1, len(values) / width)
    means = []
    for i in range(min(width, len(values))):
        part = values[int(i * size) : max(int(i * size) + 1, int((i + 1) * size))]
        means.append(sum(part) / len(part))
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    span = high - low or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (mean - low) / span)] if math.isfinite(mean) else "?" for mean in means)


def learning_curves(steps: list[dict[str, Any]]) -> str:
    """Return the curves of all logged steps, and ten of these steps as a table."""
    names = [name for name in STEP_COLUMNS if any(name in step for step in steps)]
    values_of = {name: [step[name] for step in steps if name in step] for name in names}
    curves = [
        f"    {name:<18} {sparkline(values)}  {values[0]:.3g} to {values[-1]:.3g}" for name, values in values_of.items()
    ]
    chosen = [steps[round(i * (len(steps) - 1) / 9)] for i in range(10)] if len(steps) > 10 else steps
    rows = [
        {"epoch": f"{step['epoch']:.2f}", "step": str(step["step"])}
        | {name: f"{step[name]:.4g}" if name in step else "" for name in names}
        for step in chosen
    ]
    return "\n".join(curves) + "\n\n" + markdown(rows)


def evaluations(lines: list[dict[str, Any]], best_step: int) -> str:
    """Return every evaluation as a row of a table; that of the delivered model, of ``best_step``, is marked."""
    return markdown(
        [
            {"epoch": f"{line['epoch']:.2f}", "step": str(line["step"])}
            | {name: f"{value:.2f}" for name, value in line["metrics"].items()}
            | {"recipe complete": "yes" if line["valid"] else "no", "": "kept" if line["step"] == best_step else ""}
            for line in lines
        ]
    )
