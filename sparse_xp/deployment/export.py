"""Export a model into a deployment folder: the ONNX file, checked against PyTorch, and the files beside it.

``onnx_export`` writes the file, ``distance`` and ``gate`` check it, ``bundle`` and ``samples`` write the files for
predicting and verifying. ``delivery`` (of a run), ``export_command`` and ``deploy_model`` (a model in memory) call
``export_checked``, then add the model card, which needs the whole result.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from backports import zstd

from sparse_xp.deployment.bundle import write_deployment, write_task
from sparse_xp.deployment.distance import Distance, measure_distance
from sparse_xp.deployment.engines import Batch, fixed_shape, infer, open_session, openvino_forward
from sparse_xp.deployment.gate import check_distances, check_metrics
from sparse_xp.deployment.graph import inspect_graph, load_onnx, read_weight
from sparse_xp.deployment.onnx_export import ordered_inputs, to_onnx, to_openvino
from sparse_xp.deployment.onnx_file import files_of
from sparse_xp.deployment.samples import write_samples
from sparse_xp.evaluation import EvalContext, predict
from sparse_xp.functional.quant_modules import quantized_modules
from sparse_xp.models.embedding_model import is_embedding_model, write_modules
from sparse_xp.result import Deployment
from sparse_xp.settings import Export


def export_checked(context: EvalContext, directory: Path, settings: Export, expected: dict[str, float]) -> Deployment:
    """Write ``model.onnx`` and the files beside it into ``directory``, and check that it computes what the model does.

    ``expected``: the metrics of the model in PyTorch, in per cent. Raises UserError, with the cause, if a logit or a
    metric differs by more than ``settings`` allow.
    """
    path = directory / "model.onnx"
    to_onnx(context, path, settings.opset, settings.batch, settings.sequence, settings.external_data)
    context.model.config.save_pretrained(directory)
    context.tokenizer.save_pretrained(directory)
    if is_embedding_model(context.model):
        write_modules(context.model, directory, context.task.head_options)
    if settings.openvino:
        to_openvino(path)
    session = open_session(path, context.threads, way_out="Try another export.opset.")

    def forward(batch: Batch) -> Batch:
        return infer(session, batch)

    integers, shape = any(quantized_modules(context.model)), fixed_shape(session)
    forwards: dict[str, Callable[[Batch], Batch]] = {"exported": forward}
    if settings.openvino:
        forwards["OpenVINO"] = openvino_forward(directory / "model.xml", shape, context.threads)
    distances, metrics = compare_with_model(context, path, forwards, settings, expected)

    stats = inspect_graph(path)
    farthest = Distance(max(d.highest for d in distances.values()), max(d.rms for d in distances.values()))
    write_deployment(directory, integers, stats.portable, farthest.limits(settings, integers))
    write_task(directory, context.task, int(context.tokenizer.pad_token_id or 0))
    write_samples(directory / "samples", context, ordered_inputs(context), forward, shape)
    return Deployment(
        metrics=metrics,
        max_abs_diff=distances["exported"].highest,
        bytes=sum(file.stat().st_size for file in files_of(path)),
        compressed_bytes=compressed_size(path),
        nonzero_bytes=nonzero_size(path),
        compression="zstd",
        integers=integers,
        openvino_max_abs_diff=distances["OpenVINO"].highest if settings.openvino else None,
        largest_pair=stats.largest_pair,
        portable=stats.portable,
    )


def compare_with_model(
    context: EvalContext,
    path: Path,
    forwards: dict[str, Callable[[Batch], Batch]],
    settings: Export,
    expected: dict[str, float],
) -> tuple[dict[str, Distance], dict[str, float]]:
    """Return the distances of each engine's logits from PyTorch's, and the metrics of the ONNX file.

    This is the gate. It raises UserError past the limits of ``settings``: for the logits first, because the metrics
    need the whole evaluation set.
    ``forwards``: what computes the file, by engine; ``exported`` computes the ONNX file.
    """
    integers = any(quantized_modules(context.model))
    distances = {engine: measure_distance(context, forward) for engine, forward in forwards.items()}
    check_distances(path, context, distances, settings, integers)
    metrics = context.task.score(context.eval_rows, context.eval_features, predict(context, forwards["exported"]))
    check_metrics(context, metrics, expected, distances["exported"].rms, settings, integers)
    return distances, metrics


def compressed_size(path: Path) -> int:
    """Return the bytes of an ONNX file, and of that of its weights, under zstd at its default level, 3.

    Zeros cost no space once compressed.
    """
    size, compressor = 0, zstd.ZstdCompressor(level=3)
    for name in files_of(path):
        with name.open("rb") as file:
            size += sum(len(compressor.compress(chunk)) for chunk in iter(lambda: file.read(1 << 20), b""))
    return size + len(compressor.flush())


def nonzero_size(path: Path) -> int:
    """Return the bytes of the nonzero elements of the graph's initializers."""
    weights = (read_weight(path, weight) for weight in load_onnx(path).graph.initializer)
    return sum(int(np.count_nonzero(weight)) * weight.itemsize for weight in weights)
