"""The deployment: an ONNX file, and the proof that it computes what the model computes."""

from __future__ import annotations

import inspect
import logging
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from sparse_xp.bundle import write_bundle
from sparse_xp.config import Export
from sparse_xp.data import collate
from sparse_xp.errors import UserError
from sparse_xp.evaluation import Subject, predict
from sparse_xp.fake_quant import quantized
from sparse_xp.files import whole_directory
from sparse_xp.integer_graph import integer_copy, translations
from sparse_xp.result import Deployment

if TYPE_CHECKING:
    import onnxruntime


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
    """Write ``directory`` and prove it. ``expected``: the metrics of the model in PyTorch, in per cent.

    Raises UserError, saying by how much, if any logit or the task's metric differs by more than ``settings`` allow;
    the directory is then left out.
    """
    with whole_directory(directory) as draft:
        path = draft / "model.onnx"
        to_onnx(subject, path, settings.opset)
        subject.model.config.save_pretrained(draft)
        subject.tokenizer.save_pretrained(draft)
        session = open_session(path)
        difference = max_abs_diff(subject, session)
        suffix = "_int8" if any(quantized(subject.model)) else ""
        limit, metric_limit = (getattr(settings, f"max_{what}_diff{suffix}") for what in ("abs", "metric"))
        if not difference <= limit:  # also true for nan
            raise UserError(
                f"The exported file does not compute what the model computes: a logit differs by {difference:.3g}, "
                f"export.max_abs_diff{suffix} allows {limit:.3g}."
            )
        metrics = subject.task.score(
            subject.rows, subject.eval_features, predict(subject, lambda batch: infer(session, batch))
        )
        for name, value in metrics.items():
            if name.endswith("_threshold"):
                continue  # no score but where one is best: a tie may put it elsewhere
            apart = abs(value - expected[name]) / max(1.0, abs(value) / 100)  # a perplexity may be in the thousands
            if not apart <= metric_limit:
                raise UserError(
                    f"The exported file scores {name} {value:.2f}, the model {expected[name]:.2f}: {apart:.2f} apart, "
                    f"export.max_metric_diff{suffix} allows {metric_limit:g}."
                )
        write_bundle(draft, subject, ordered_inputs(subject), lambda batch: infer(session, batch))
        return Deployment(
            metrics=metrics,
            max_abs_diff=difference,
            bytes=path.stat().st_size,
            compressed_bytes=compressed_size(path),
            nonzero_bytes=nonzero_size(path),
        )


def to_onnx(subject: Subject, path: Path, opset: int) -> None:
    """One file, dynamic in rows and tokens; inputs in the order of the model's signature."""
    model = subject.model.cpu().eval()
    sample = collate(
        subject.eval_features, [0, min(1, len(subject.eval_features) - 1)], ordered_inputs(subject), subject.padding
    )
    rows, tokens = (
        torch.export.Dim("batch"),
        torch.export.Dim("sequence", min=2, max=model.config.max_position_embeddings),
    )
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript"), logging.getLogger("onnx_ir")
    before = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.ERROR)
    whole = any(quantized(model))
    try:
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
                dynamic_shapes={"values": tuple({0: rows, 1: tokens} for _ in sample)},
                external_data=False,
                verbose=False,
                custom_translation_table=translations(opset) if whole else None,
            )
    finally:
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


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def infer(session: onnxruntime.InferenceSession, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name for a batch of int64 arrays [rows, tokens] by name."""
    wanted = {i.name for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    values: list[Any] = session.run(names, {name: value for name, value in batch.items() if name in wanted})
    return dict(zip(names, values, strict=True))


def max_abs_diff(subject: Subject, session: onnxruntime.InferenceSession) -> float:
    """The largest difference of any real logit between PyTorch and onnxruntime, over real batches of several shapes."""
    worst = 0.0
    total = len(subject.eval_features)
    for size in (1, 3, 8, 32):
        rows = list(range(0, total, max(1, total // size)))[:size]
        batch = collate(subject.eval_features, rows, subject.inputs, subject.padding)
        with torch.no_grad():
            ours = subject.model(**batch)
        theirs = infer(session, {name: value.numpy() for name, value in batch.items()})
        classes, tokens = subject.task.class_mask(batch), subject.task.token_mask(batch)
        mask = tokens if classes is None else classes
        for name in subject.task.outputs:
            gap = np.abs(ours[name].numpy() - theirs[name])
            if (
                mask is not None and gap.shape[: mask.dim()] == mask.shape
            ):  # an output with one entry a row has no tokens
                gap = gap[mask.numpy()]
            worst = max(worst, float(gap.max()))
    return worst


def compressed_size(path: Path) -> int:
    """Bytes of the file under gzip -6: zeros cost no space once compressed."""
    squeeze = zlib.compressobj(level=6, wbits=31)
    with path.open("rb") as file:
        size = sum(len(squeeze.compress(chunk)) for chunk in iter(lambda: file.read(1 << 20), b""))
    return size + len(squeeze.flush())


def nonzero_size(path: Path) -> int:
    """Bytes of the elements of the graph's initializers that are not zero."""
    weights = (onnx.numpy_helper.to_array(weight) for weight in onnx.load(path).graph.initializer)
    return sum(int(np.count_nonzero(weight)) * weight.itemsize for weight in weights)
