"""The conversion of a trained model into an ONNX file, and of that into OpenVINO's format.

A quantized model is first copied into one of int8 weights (``integer_graph``), whose operators are translated here.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from transformers import PreTrainedModel

from sparse_xp.deployment.integer_graph import integer_copy, translations
from sparse_xp.errors import UserError
from sparse_xp.evaluation import EvalContext
from sparse_xp.functional.architectures import longest_text
from sparse_xp.functional.quant_modules import quantized_modules


class Logits(torch.nn.Module):
    """Wrap a model so that it takes positional inputs and returns a tuple of logits, as a graph does."""

    def __init__(self, model: torch.nn.Module, inputs: list[str], outputs: tuple[str, ...]):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the task's outputs for inputs of [rows, tokens]."""
        results = self.model(**dict(zip(self.inputs, values, strict=True)))
        return tuple(results[name] for name in self.outputs)


def to_onnx(
    context: EvalContext,
    path: Path,
    opset: int,
    batch: int | None = None,
    sequence: int | None = None,
    external_data: bool = False,
) -> None:
    """Write the model as an ONNX file, with its inputs in the order of the model's signature. It stays on the CPU.

    ``batch``, ``sequence``: fixed numbers of rows and tokens, None for any. ``external_data``: write the weights into a
    file beside it (``onnx_file.data_file``). PyTorch does so anyway for more than 1.5 GiB of weights, as no ONNX file
    can have 2 GiB. Raises UserError for more tokens than the model can read.
    """
    model = context.model.cpu()
    context.device = torch.device("cpu")
    model.train(False)
    most = longest_text(model.config.to_dict())
    if sequence and most is not None and sequence > most:
        raise UserError(f"export.sequence={sequence}: the model takes {most} tokens.")
    sample = {name: torch.zeros((batch or 2, sequence or 8), dtype=torch.int64) for name in ordered_inputs(context)}
    sample["attention_mask"] += 1
    dynamic: dict[int, Any] = {} if batch else {0: torch.export.Dim("batch")}
    dynamic |= {} if sequence else {1: torch.export.Dim("sequence", min=2, max=most)}
    integers = any(quantized_modules(model))
    outputs = (*context.task.outputs, *context.task.further_outputs)
    with quiet_exporter(), eager_attention(model):
        torch.onnx.export(
            Logits(integer_copy(model) if integers else model, list(sample), outputs),
            tuple(sample.values()),
            path,
            dynamo=True,
            opset_version=opset,
            input_names=list(sample),
            output_names=list(outputs),
            dynamic_shapes={"values": tuple(dynamic for _ in sample)},
            external_data=external_data,
            verbose=False,
            custom_translation_table=translations(opset) if integers else None,
        )
    strip_traces(path)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Suppress the warnings of torch.onnx and onnxscript in the block."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Compute attention by plain matrix products in the block.

    Exported, scaled_dot_product_attention guards every row against a mask without tokens, by nodes in every layer that
    onnxruntime does not fuse. The plain products compute the same.
    """
    attention = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        model.set_attn_implementation(attention)


def strip_traces(path: Path) -> None:
    """Remove the metadata of the exporter: stack traces with the paths of this machine, half of a tiny file."""
    model = onnx.load(path, load_external_data=False)
    for item in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        del item.metadata_props[:]
        if isinstance(item, onnx.NodeProto):
            item.doc_string = ""
    onnx.save(model, path)


def ordered_inputs(context: EvalContext) -> list[str]:
    """Return the model's inputs in the order of its ``forward``: input_ids, attention_mask, token_type_ids for BERT."""
    return [name for name in inspect.signature(context.model.forward).parameters if name in context.inputs]


def to_openvino(path: Path) -> None:
    """Write ``model.xml`` and ``model.bin`` beside an ONNX file: OpenVINO's format, with unchanged weights."""
    import openvino  # optional

    openvino.save_model(openvino.Core().read_model(path), path.with_suffix(".xml"), compress_to_fp16=False)
