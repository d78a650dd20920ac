"""What distillation has to know of the outputs of any model: which are logits, and which entries count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparse_xp.errors import UserError

#: the output of sentence-transformers that is compared
EMBEDDING = "sentence_embedding"
#: the names of the logits over the tokens of a text, whose padding is no class
SPANS = ("start_logits", "end_logits")


def named_outputs(outputs: object) -> Mapping[str, Any]:
    """Return outputs by name; a single tensor is ``logits``. Raises UserError for anything else."""
    if isinstance(outputs, Tensor):
        return {"logits": outputs}
    if isinstance(outputs, Mapping):
        return outputs
    if isinstance(outputs, tuple | list) and outputs and isinstance(outputs[0], Tensor):
        return {"logits": outputs[0]}
    raise UserError(
        f"The outputs are a {type(outputs).__name__}: expected what a model of transformers returns, a dictionary or a "
        "tensor of logits. Anything else can be compared with the teacher's by distillation=FUNCTION."
    )


def logit_names(outputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the outputs that a teacher's are compared with."""
    tensors = [name for name, value in outputs.items() if isinstance(value, Tensor) and value.is_floating_point()]
    logits = tuple(name for name in tensors if name == "logits" or name.endswith("_logits"))
    return logits or tuple(name for name in tensors if name == EMBEDDING)


class LoopOutputs:
    """The outputs of the model in a loop of one's own, as modifiers see them.

    ``outputs``: the names of the logits, known from the first batch on. ``current``: those of the current batch.
    """

    name: ClassVar[str] = "of this loop"
    loss_reduction: ClassVar[str] = "mean"

    def __init__(self, model: nn.Module):
        self.config = getattr(model, "config", None)
        self.outputs: tuple[str, ...] = ()
        self.current: Mapping[str, Any] = {}

    def read(self, outputs: object) -> Mapping[str, Any]:
        """Return the outputs of a batch by name, and remember which are logits. Raises UserError if there are none."""
        self.current = named_outputs(outputs)
        self.outputs = logit_names(self.current)
        if not self.outputs:
            raise UserError(
                f"The model returns {', '.join(self.current) or 'nothing'}: no logits to compare with the teacher's. "
                "Give distillation=FUNCTION, which gets the outputs of both and the batch and returns a loss."
            )
        return self.current

    @property
    def problem_type(self) -> str:
        """The problem type of the logits: that of the model's configuration, or regression for a single number."""
        stated = getattr(self.config, "problem_type", None)
        widths = {self.current[name].shape[-1] for name in self.outputs}
        is_number = widths == {1} or self.outputs == (EMBEDDING,)
        return stated or ("regression" if is_number else "single_label_classification")

    def class_mask(self, batch: object) -> Tensor | None:
        """Return which tokens of a text may start or end a span, [rows, tokens]; None for other outputs."""
        return attention_mask(batch) if set(self.outputs) <= set(SPANS) else None

    def token_mask(self, batch: object) -> Tensor | None:
        """Return which tokens have outputs that count, [rows, tokens]; None for outputs without tokens."""
        mask = attention_mask(batch)
        shapes = [tuple(self.current[name].shape[:2]) for name in self.outputs if self.current[name].dim() == 3]
        return mask if mask is not None and tuple(mask.shape) in shapes else None


def attention_mask(batch: object) -> Tensor | None:
    """Return the mask of a batch, True for tokens that are not padding, or None."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return mask.bool() if isinstance(mask, Tensor) else None


def is_target(name: str) -> bool:
    """Return whether an entry of a batch is a target of the loss, and no input of the model."""
    return "label" in name or name in ("start_positions", "end_positions", "num_items_in_batch")


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a batch that are inputs of the model."""
    return {name: value for name, value in batch.items() if not is_target(name)}


def run_model(model: nn.Module, batch: object) -> object:
    """Return the outputs of a model for a batch: a mapping, or a pair of inputs and targets.

    A mapping is passed as keywords, without its targets.
    """
    inputs = inputs_of(batch)
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def inputs_of(batch: Any) -> Any:
    """Return the inputs of a batch: a mapping without its targets, or the first of a pair of inputs and targets."""
    if isinstance(batch, Mapping):
        return model_inputs(batch)
    return batch[0] if isinstance(batch, tuple | list) else batch


def moved(batch: Any, device: torch.device) -> Any:
    """Return a batch with every tensor in it on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: moved(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(moved(value, device) for value in batch)
    return batch


def rows_of(batch: object) -> int:
    """Return the number of rows of a batch: the first dimension of its first tensor."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 1
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return next((rows for rows in map(rows_of, values) if rows), 0)
