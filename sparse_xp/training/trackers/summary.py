"""What a tracker records of a finished run: the numbers that the run promises, by flat names."""

from __future__ import annotations

from sparse_xp.deployment.measured_latency import Latency
from sparse_xp.result import Result

Value = bool | int | float | str


def trained_values(result: Result) -> dict[str, Value]:
    """Return what is known once a run is trained. ``valid`` is False until the exported file has passed its check.

    ``best_score``: of the delivered model in PyTorch; ``best_step``: the step that it is of.
    """
    sparsity, training = result.sparsity, result.training
    values: dict[str, Value] = {
        "valid": False,
        "best_score": result.metrics[result.metric],
        "best_step": training.best_step,
        "teacher": result.teacher or "none",
        "quantization": result.quantization or "none",
        "sparsity/prunable": sparsity.prunable,
        "sparsity/encoder": sparsity.encoder,
        "sparsity/model": sparsity.model,
        "train_seconds": training.seconds,
        "train_samples_per_second": training.samples_per_second,
    }
    if sparsity.removed:
        values["sparsity/removed"] = sparsity.removed.share
    return values


def finished_values(result: Result, dense_score: float | None, latency: Latency | None) -> dict[str, Value]:
    """Return the values of a finished run.

    ``score``: of the exported file, in the task's metric; ``exported/...``: all its metrics. ``recovery``: the score in
    per cent of ``dense_score``, that of the dense model, if it is known. ``compression/...``: how many times smaller
    the nonzero weights are than the dense model's. ``latency_ms``, ``speedup``: of ``latency``, if the file was
    benchmarked before.
    """
    deployed = result.deployment
    score = deployed.metrics[result.metric]
    values = trained_values(result) | {
        "valid": True,
        "score": score,
        **{f"exported/{name}": value for name, value in deployed.metrics.items()},
        "bytes": deployed.bytes,
        "compressed_bytes": deployed.compressed_bytes,
    }
    if deployed.nonzero_bytes is not None:
        values["nonzero_bytes"] = deployed.nonzero_bytes
    if dense_score:
        values["recovery"] = 100 * score / dense_score
    if result.compression:
        values["compression/encoder"] = result.compression.encoder.ratio
        values["compression/model"] = result.compression.model.ratio
    if latency:
        values |= {"latency_ms": latency.ms, "speedup": latency.ratio}
    return values
