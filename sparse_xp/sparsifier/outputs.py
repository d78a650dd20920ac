"""What distillation has to know of the outputs of any model: which are logits, and which entries count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from sparse_xp.errors import UserError
from sparse_xp.functional.model_calls import Batch, attention_mask, call_model

#: the outputs of sentence-transformers that are compared: of a SentenceTransformer, of a CrossEncoder
EMBEDDING, SCORES = "sentence_embedding", "scores"
#: the names of the logits over the tokens of a text, whose padding is no class
SPANS = ("start_logits", "end_logits")


def named_outputs(outputs: object, whose: str = "the model") -> Mapping[str, Any]:
    """Return outputs by name; a single tensor is ``logits``, also behind a loss. Raises UserError for anything else."""
    if isinstance(outputs, Tensor):
        return {"logits": outputs}
    if isinstance(outputs, Mapping):
        return outputs
    if isinstance(outputs, tuple | list):
        values = [each for each in outputs if not isinstance(each, Tensor) or each.dim()]  # without the loss
        if len(values) == 1 and isinstance(values[0], Tensor):
            return {"logits": values[0]}
        raise UserError(
            f"{whose.capitalize()} returns a {type(outputs).__name__} of {len(outputs)}, which does not say where the "
            "logits are: return_dict=True for models of transformers, a dictionary of your own, or "
            "distillation=FUNCTION."
        )
    raise UserError(
        f"The outputs of {whose} are a {type(outputs).__name__}: expected what a model of transformers returns, a "
        "dictionary or a tensor of logits. Anything else can be compared with the teacher's by distillation=FUNCTION."
    )


def logit_names(outputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the outputs that a teacher's are compared with."""
    tensors = [name for name, value in outputs.items() if isinstance(value, Tensor) and value.is_floating_point()]
    logits = tuple(name for name in tensors if name == "logits" or name.endswith("_logits"))
    return logits or tuple(name for name in tensors if name in (EMBEDDING, SCORES))


class LoopOutputs:
    """The outputs of the model in a loop of one's own, as modifiers see them.

    ``chosen``: the names of outputs that the recipe compares, none for the logits. ``outputs``: what is compared, known
    from the first batch on. ``current``: the outputs of the current batch.
    """

    name: ClassVar[str] = "of this loop"
    loss_reduction: ClassVar[str] = "mean"
    embeds: ClassVar[bool] = False

    def __init__(self, model: nn.Module, chosen: tuple[str, ...] = ()):
        self.config, self.chosen = getattr(model, "config", None), chosen
        self.outputs: tuple[str, ...] = ()
        self.current: Mapping[str, Any] = {}

    def read(self, outputs: object) -> Mapping[str, Any]:
        """Return the outputs of a batch by name, and remember which are logits. Raises UserError if there are none."""
        self.current = named_outputs(outputs)
        self.outputs = self.chosen or logit_names(self.current)
        if not self.outputs or not set(self.outputs) <= set(self.current):
            raise UserError(
                f"The model returns {', '.join(self.current) or 'nothing'}: no {', '.join(self.chosen) or 'logits'} to "
                "compare with the teacher's. "
                "Give distillation=FUNCTION, which gets the outputs of both and the batch and returns a loss."
            )
        if image := next((name for name in self.outputs if self.current[name].dim() > 3), None):
            raise UserError(
                f"'{image}' has the shape {tuple(self.current[image].shape)}: logits of images have their classes in "
                "another place than texts. Give distillation=FUNCTION, which compares them with the teacher's."
            )
        return self.current

    @property
    def problem_type(self) -> str:
        """The problem type of the logits: that of the model's configuration, or regression for a single number."""
        stated = getattr(self.config, "problem_type", None)
        # Of logits [rows] each is a number.
        widths = {self.current[name].shape[-1] if self.current[name].dim() > 1 else 1 for name in self.outputs}
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


def is_target(name: str) -> bool:
    """Return whether an entry of a batch is a target of the loss, and no input of the model."""
    targets = ("target", "targets", "start_positions", "end_positions", "num_items_in_batch")
    return "label" in name or name in targets


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a batch that are inputs of the model."""
    return {name: value for name, value in batch.items() if not is_target(name)}


def run_model(model: nn.Module, batch: object) -> object:
    """Return the outputs of a model for the inputs of a batch."""
    return call_model(model, inputs_of(model, batch))


def inputs_of(model: nn.Module, batch: Batch) -> Batch:
    """Return the inputs of a batch: a mapping without its targets, or the first of a pair of inputs and targets.

    The decoder of an encoder-decoder reads the targets. Raises UserError for a longer tuple, of which only the loop
    knows what is an input.
    """
    if isinstance(batch, Mapping):
        reads_targets = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        return dict(batch) if reads_targets else model_inputs(batch)
    if not isinstance(batch, tuple | list):
        return batch
    if len(batch) not in (1, 2):
        raise UserError(
            f"A batch is a {type(batch).__name__} of {len(batch)}: expected a mapping of the model's inputs, or a pair "
            "of inputs and targets. Pass another batch to loss() and batches=, or give the teacher as a function."
        )
    return batch[0]


def rows_of(batch: object) -> int:
    """Return the number of rows of a batch: the first dimension of its first tensor."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 1
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return next((rows for rows in map(rows_of, values) if rows), 0)
