"""The deployment: an ONNX file, and the proof that it computes what the model computes."""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from backports import zstd

from sparse_xp.data.batches import collate
from sparse_xp.deployment.bundle import Limits, write_bundle, write_deployment
from sparse_xp.deployment.engines import Batch, fixed_shape, infer, open_session, openvino_forward
from sparse_xp.deployment.graph import look
from sparse_xp.deployment.integer_graph import integer_copy, translations
from sparse_xp.errors import UserError
from sparse_xp.evaluation import Subject, predict
from sparse_xp.functional.fake_quant import quantized
from sparse_xp.result import Deployment
from sparse_xp.settings import Export


class Logits(torch.nn.Module):
    """The model with positional inputs and a tuple of logits, which is what a graph has."""

    def __init__(self, model: torch.nn.Module, inputs: list[str], outputs: tuple[str, ...]):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[rows, tokens] each in, the task's outputs out."""
        found = self.model(**dict(zip(self.inputs, values, strict=True)))
        return tuple(found[name] for name in self.outputs)


def export(subject: Subject, directory: Path, settings: Export, expected: dict[str, float]) -> Deployment:
    """Write the file into ``directory``, with all that goes with it, and prove it.

    ``expected``: the metrics of the model in PyTorch, in per cent. Raises UserError, with the cause, if any logit or a
    metric differs by more than ``settings`` allow.
    """
    path = directory / "model.onnx"
    to_onnx(subject, path, settings.opset, settings.batch, settings.sequence)
    subject.model.config.save_pretrained(directory)
    subject.tokenizer.save_pretrained(directory)
    session = open_session(path, way_out="Try another export.opset.")
    integers = any(quantized(subject.model))
    apart = {"exported": distance(subject, lambda batch: infer(session, batch))}
    if settings.openvino:
        to_openvino(path)
        apart["OpenVINO"] = distance(subject, openvino_forward(directory / "model.xml", fixed_shape(session)))
    for name, each in apart.items():
        if excess := each.excess(settings, integers):
            told = f"The {name} file does not compute what the model computes: {excess}"
            raise UserError(f"{told} {cause(path, subject, each)}{again(*each.judged(integers))}")
    metrics = subject.task.score(
        subject.rows, subject.eval_features, predict(subject, lambda batch: infer(session, batch))
    )
    check_metrics(subject, metrics, expected, apart["exported"].rms, settings, integers)
    inside = look(path)
    farthest = Distance(max(each.highest for each in apart.values()), max(each.rms for each in apart.values()))
    write_deployment(directory, integers, inside.portable, farthest.limits(settings, integers))
    inputs = ordered_inputs(subject)
    write_bundle(directory, subject, inputs, lambda batch: infer(session, batch), fixed_shape(session))
    return Deployment(
        metrics=metrics,
        max_abs_diff=apart["exported"].highest,
        bytes=path.stat().st_size,
        compressed_bytes=compressed_size(path),
        nonzero_bytes=nonzero_size(path),
        compression="zstd",
        integers=integers,
        openvino_max_abs_diff=apart["OpenVINO"].highest if settings.openvino else None,
        largest_pair=inside.largest_pair,
        portable=inside.portable,
    )


def cause(path: Path, subject: Subject, found: Distance) -> str:
    """What is at fault for a file that far from the model: the graph, or the kernels that an engine makes of it."""
    plain = open_session(path, optimized=False)
    bare = distance(subject, lambda batch: infer(plain, batch)).rms
    if bare <= found.rms / 2:
        return (
            f"Computed node by node it is nearer ({bare:.2g} of the logits' spread, not {found.rms:.2g}): the engine's "
            "kernels are at fault. Try another version of the engine."
        )
    return (
        f"Computed node by node it is as far ({bare:.2g} of the logits' spread): it is the graph, not the engine's "
        "kernels. Try another export.opset."
    )


def again(key: str, value: float) -> str:
    """How to take a file past the limit ``key``, last of all; nothing for a value that no limit can allow."""
    if not 0 < value < math.inf:
        return ""
    digits = max(1, 1 - math.floor(math.log10(value)))
    enough = math.ceil(value * 10**digits) / 10**digits
    return (
        f" To take this file all the same: export.{key}={enough:g}, with the same command or, for a run, with "
        "python -m sparse_xp.export run=DIR. Neither trains again."
    )


def check_metrics(
    subject: Subject,
    metrics: dict[str, float],
    expected: dict[str, float],
    rms: float,
    settings: Export,
    integers: bool,
) -> None:
    """Raise UserError for a metric that differs by more than the limit, or than rounding can explain on few rows.

    ``rms``: how far the logits are apart, as a share of their spread, which was within its own limit.
    """
    key = f"max_metric_diff{'_int8' if integers else ''}"
    limit: float = getattr(settings, key)
    for name, value in metrics.items():
        if name.endswith("_threshold"):
            continue  # no score but where one is best: a tie may put it elsewhere
        lost = abs(value - expected[name]) / max(1.0, abs(value) / 100)  # a perplexity may be in the thousands
        count = subject.task.counted(name, subject.rows, subject.eval_features)
        flips = 0.0 if count is None else flips_by_rounding(count, rms)
        if lost <= max(limit, 100 * flips / max(1, count or 0)):
            continue
        told = f"The exported file scores {name} {value:.2f}, the model {expected[name]:.2f}: {lost:.2f} apart, and "
        told += f"{limit:g} is allowed."
        if count:
            told += (
                f" One answer of {count} is {100 / count:.2f}. Logits that differ by {rms:.2g} of their spread explain "
                f"{flips:.1f} answers. A model that is near a tie everywhere needs more training; few rows need more "
                "rows (task.max_eval_samples)."
            )
        raise UserError(told + again(key, lost))


def flips_by_rounding(count: int, rms: float) -> float:
    """How many answers of ``count`` rounding may change in a metric's favour or against it.

    An answer flips where its margin is smaller than the gap between the two models' logits. Margins are spread as
    logits are and gaps are ``rms`` of that spread, so that at most about ``rms`` of the answers flip. They flip both
    ways: what is left of ``count * rms`` flips is about its square root. One more is allowed, as no metric can move by
    less than one answer.
    """
    return 1 + math.sqrt(count * rms)


def to_onnx(subject: Subject, path: Path, opset: int, batch: int | None = None, sequence: int | None = None) -> None:
    """One file; inputs in the order of the model's signature. Any rows and tokens, unless ``batch``, ``sequence`` say.

    Raises UserError for more tokens than the model has places for.
    """
    model = subject.model.cpu().eval()
    most = model.config.max_position_embeddings
    if sequence and sequence > most:
        raise UserError(f"export.sequence={sequence}: the model takes {most} tokens.")
    columns = {name: np.zeros((batch or 2, sequence or 8), np.int64) for name in ordered_inputs(subject)}
    sample = {name: torch.from_numpy(array) for name, array in columns.items()}
    sample["attention_mask"] += 1
    free: dict[int, Any] = {} if batch else {0: torch.export.Dim("batch")}
    free |= {} if sequence else {1: torch.export.Dim("sequence", min=2, max=most)}
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript"), logging.getLogger("onnx_ir")
    before = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.ERROR)
    whole = any(quantized(model))
    attention = model.config._attn_implementation
    try:
        # What scaled_dot_product_attention becomes guards every row against a mask without tokens, by nodes in every
        # layer that onnxruntime does not fuse; the plain products compute the same.
        model.set_attn_implementation("eager")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Logits(integer_copy(model) if whole else model, list(sample), subject.task.outputs),
                tuple(sample.values()),
                path,
                dynamo=True,
                opset_version=opset,
                input_names=list(sample),
                output_names=list(subject.task.outputs),
                dynamic_shapes={"values": tuple(free for _ in sample)},
                external_data=False,
                verbose=False,
                custom_translation_table=translations(opset) if whole else None,
            )
    finally:
        model.set_attn_implementation(attention)
        for logger, level in zip(quiet, before, strict=True):
            logger.setLevel(level)
    without_traces(path)


def without_traces(path: Path) -> None:
    """Drop what the exporter notes of each node: stack traces with the paths of this machine, half of a tiny file."""
    model = onnx.load(path)
    for noted in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        del noted.metadata_props[:]
        if isinstance(noted, onnx.NodeProto):
            noted.doc_string = ""
    onnx.save(model, path)


def ordered_inputs(subject: Subject) -> list[str]:
    """The model's inputs in the order of its ``forward``: input_ids, attention_mask, token_type_ids for BERT."""
    return [name for name in inspect.signature(subject.model.forward).parameters if name in subject.inputs]


def to_openvino(path: Path) -> None:
    """``model.xml`` and ``model.bin`` beside an ONNX file: the same in OpenVINO's own format, weights as they are."""
    import openvino

    openvino.save_model(openvino.Core().read_model(path), path.with_suffix(".xml"), compress_to_fp16=False)


@dataclass
class Distance:
    """Of the logits of two models: the largest difference, and the root mean square of all over the logits' spread."""

    highest: float
    rms: float

    def judged(self, integers: bool) -> tuple[str, float]:
        """The limit and what it is for: ``rms`` where both compute in integers, else ``highest``."""
        return ("max_rms_diff_int8", self.rms) if integers else ("max_abs_diff", self.highest)

    def excess(self, settings: Export, integers: bool) -> str:
        """What is past its limit, in words. Empty if nothing is."""
        key, value = self.judged(integers)
        limit: float = getattr(settings, key)
        if value <= limit:  # false for nan
            return ""
        how = f"logits differ by {value:.3g} of their spread" if integers else f"a logit differs by {value:.3g}"
        return f"{how}, export.{key} allows {limit:.3g}."

    def limits(self, settings: Export, integers: bool) -> Limits:
        """How far the samples may be from what is recorded, on another machine (``verify``).

        There the same kernels round in another order. What that does to integers is about as much as the way from
        PyTorch to onnxruntime did here: three times that, within what the gate allows.
        """
        rms = min(settings.max_rms_diff_int8, max(0.03, 3 * self.rms))
        return Limits(max_abs_diff=None, max_rms_diff=rms) if integers else Limits(settings.max_abs_diff, None)


def distance(subject: Subject, forward: Callable[[Batch], Batch]) -> Distance:
    """How far a file is from PyTorch in real logits, over real batches of several shapes."""
    highest, count, gaps, sums, squares = 0.0, 0, 0.0, 0.0, 0.0  # kept as sums: a vocabulary's logits fill gigabytes
    total = len(subject.eval_features)
    for size in (1, 3, 8, 32):
        rows = list(range(0, total, max(1, total // size)))[:size]
        batch = collate(subject.eval_features, rows, subject.inputs, subject.padding)
        with torch.no_grad():
            ours = subject.model(**batch)
        theirs = forward({name: value.numpy() for name, value in batch.items()})
        classes, tokens = subject.task.class_mask(batch), subject.task.token_mask(batch)
        mask = tokens if classes is None else classes
        for name in subject.task.outputs:
            logits = ours[name].numpy()
            gap = logits - theirs[name][: logits.shape[0], : logits.shape[1]]
            # A mask of tokens keeps all classes of each; an output with one entry a row has no tokens.
            kept = mask.numpy() if mask is not None and logits.shape[: mask.dim()] == mask.shape else ...
            logits, gap = logits[kept].ravel(), gap[kept].ravel()
            highest = float(np.maximum(highest, np.abs(gap).max(initial=0.0)))  # nan stays nan
            count += logits.size
            gaps += float(np.einsum("i,i->", gap, gap, dtype=np.float64))
            sums += float(logits.sum(dtype=np.float64))
            squares += float(np.einsum("i,i->", logits, logits, dtype=np.float64))
    spread = math.sqrt(max(squares / count - (sums / count) ** 2, 0.0))
    return Distance(highest, math.sqrt(gaps / count) / max(spread, 1e-9))


def compressed_size(path: Path) -> int:
    """Bytes of the file under zstd at its default level, 3: zeros cost no space once compressed."""
    squeeze = zstd.ZstdCompressor(level=3)
    with path.open("rb") as file:
        size = sum(len(squeeze.compress(chunk)) for chunk in iter(lambda: file.read(1 << 20), b""))
    return size + len(squeeze.flush())


def nonzero_size(path: Path) -> int:
    """Bytes of the elements of the graph's initializers that are not zero."""
    weights = (onnx.numpy_helper.to_array(weight) for weight in onnx.load(path).graph.initializer)
    return sum(int(np.count_nonzero(weight)) * weight.itemsize for weight in weights)
