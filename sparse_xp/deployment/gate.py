"""The gate of the export: refuse a file whose logits or metrics differ from the model's by more than allowed.

The limits are those of ``settings.Export``. A message says what differs, the likely cause, and how to accept the file
anyway.
"""

from __future__ import annotations

import math
from pathlib import Path

from sparse_xp.deployment.distance import Distance, measure_distance
from sparse_xp.deployment.engines import infer, open_session
from sparse_xp.errors import UserError
from sparse_xp.evaluation import EvalContext
from sparse_xp.settings import Export


def check_distances(
    path: Path, context: EvalContext, distances: dict[str, Distance], settings: Export, integers: bool
) -> None:
    """Raise UserError if the logits of a file are past their limit.

    ``path``: the ONNX file. ``distances``: to PyTorch, by the name of the file (``exported``, ``OpenVINO``).
    """
    for name, distance in distances.items():
        if excess := distance.excess(settings, integers):
            raise UserError(
                f"The {name} file does not compute what the model computes: {excess} "
                f"{diagnose(path, context, distance)}{how_to_accept(*distance.criterion(integers))}"
            )


def diagnose(path: Path, context: EvalContext, distance: Distance) -> str:
    """Return who is at fault for a large ``distance``: the graph, or the engine's optimized kernels."""
    session = open_session(path, context.threads, optimized=False)
    unoptimized = measure_distance(context, lambda batch: infer(session, batch)).rms
    if unoptimized <= distance.rms / 2:
        return (
            f"Computed node by node it is nearer ({unoptimized:.2g} of the logits' spread, not {distance.rms:.2g}): "
            "the engine's kernels are at fault. Try another version of the engine."
        )
    return (
        f"Computed node by node it is as far ({unoptimized:.2g} of the logits' spread): it is the graph, not the "
        "engine's kernels. Try another export.opset."
    )


def how_to_accept(key: str, value: float) -> str:
    """Return the setting that lets ``value`` pass the limit ``key``; an empty string if no limit can allow it."""
    if not 0 < value < math.inf:
        return ""
    digits = max(1, 1 - math.floor(math.log10(value)))
    enough = math.ceil(value * 10**digits) / 10**digits
    return (
        f" To take this file all the same: export.{key}={enough:g}, with the same command or, for a run, with "
        f"python -m sparse_xp.export run=DIR; in Python, {key}={enough:g} of sparse_xp.export. Neither trains again."
    )


def check_metrics(
    context: EvalContext,
    metrics: dict[str, float],
    expected: dict[str, float],
    rms: float,
    settings: Export,
    integers: bool,
) -> None:
    """Raise UserError for a metric that differs by more than the limit, or than rounding can explain on few rows.

    ``metrics``: of the file; ``expected``: of the model in PyTorch, both in per cent. ``rms``: the distance of the
    logits (``Distance.rms``), which is within its own limit.
    """
    key = f"max_metric_diff{'_int8' if integers else ''}"
    limit: float = getattr(settings, key)
    for name, value in metrics.items():
        if name.endswith("_threshold"):
            continue  # a threshold, not a score; ties may move it
        difference = abs(value - expected[name]) / max(1.0, abs(value) / 100)  # a perplexity may be in the thousands
        count = context.task.answer_count(name, context.eval_rows, context.eval_features)
        flips = 0.0 if count is None else flips_by_rounding(count, rms)
        if difference <= max(limit, 100 * flips / max(1, count or 0)):
            continue
        message = (
            f"The exported file scores {name} {value:.2f}, the model {expected[name]:.2f}: {difference:.2f} apart, and "
            f"{limit:g} is allowed."
        )
        if count:
            message += (
                f" One answer of {count} is {100 / count:.2f}. Logits that differ by {rms:.2g} of their spread explain "
                f"{flips:.1f} answers. A model that is near a tie everywhere needs more training; few rows need more "
                "rows (task.max_eval_samples)."
            )
        raise UserError(message + how_to_accept(key, difference))


def flips_by_rounding(count: int, rms: float) -> float:
    """Return the number of answers (of ``count``) by which rounding may raise or lower a metric.

    An answer flips where its margin is smaller than the difference between the two models' logits. Margins are spread
    as logits are, and differences are ``rms`` of that spread, so that at most about ``rms`` of the answers flip. They
    flip both ways: the sum of ``count * rms`` flips is about its square root. One more is allowed, as no metric can
    move by less than one answer.
    """
    return 1 + math.sqrt(count * rms)
