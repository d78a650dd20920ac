"""An encoder whose outputs have the vector of each text: ``sentence_embedding``, as sentence-transformers computes it.

The model stays the encoder of transformers, with its weights under their own names. Pruning, quantization and export
see nothing else. ``save_pretrained`` writes a directory that sentence-transformers opens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sparse_xp.errors import UserError
from sparse_xp.functional.pooling import pool
from sparse_xp.models.sentence_configs import ACTIVATIONS
from sparse_xp.models.sentence_modules import (
    SentenceHead,
    read_dense_weights,
    read_sentence_head,
    write_sentence_modules,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils.generic import ModelOutput

M = TypeVar("M", bound="PreTrainedModel")

#: the output that is the vector of a text
EMBEDDING = "sentence_embedding"
#: the fields of ``SentenceHead`` that say how a text is read, and not what the model computes of it
OF_TEXTS = ("max_length", "prompts", "default_prompt")


def embedding_class(cls: type[M]) -> type[M]:
    """Return a subclass of an encoder's class whose outputs have ``sentence_embedding`` [rows, size].

    ``add_sentence_head`` has to complete its models.
    """
    encode: Callable[..., ModelOutput] = cls.forward
    save: Callable[..., None] = cls.save_pretrained

    @functools.wraps(cls.forward)
    def forward(self: M, *args: Tensor, **kwargs: Tensor) -> ModelOutput:
        outputs: ModelOutput = encode(self, *args, **{**kwargs, "return_dict": True})
        mask = args[1] if len(args) > 1 else kwargs.get("attention_mask")
        outputs[EMBEDDING] = embed(self, outputs["last_hidden_state"], mask)
        return outputs

    def save_pretrained(
        self: M, save_directory: str | Path, state_dict: dict[str, Tensor] | None = None, **options: object
    ) -> None:
        weights = state_dict or self.state_dict()
        encoder = {name: value for name, value in weights.items() if not name.startswith("sentence_dense.")}
        pooler = cast(dict[str, Tensor], self.unused_pooler)
        save(self, save_directory, state_dict={**encoder, **pooler}, **options)
        write_modules(self, save_directory)

    # The name of the stock class: save_pretrained writes it into config.json as the architecture.
    return type(
        cls.__name__, (cls,), {"forward": forward, "save_pretrained": save_pretrained, "__module__": cls.__module__}
    )


def sentence_head(checkpoint: str, revision: str | None, hidden: int, options: dict[str, Any]) -> SentenceHead:
    """Return how the model of a checkpoint makes the vector of a text, as its files say and ``options`` change it.

    ``hidden``: the size of the encoder. ``options``: fields of ``SentenceHead``. A plain encoder has the mean over its
    tokens. Raises UserError for more dimensions than there are.
    """
    stored = read_sentence_head(checkpoint, revision) or SentenceHead()
    size = full_size(stored, hidden)
    if (wanted := options.get("dimensions")) is not None and wanted > size:
        raise UserError(f"task.dimensions={wanted}: the embeddings of {checkpoint} have {size} numbers.")
    return replace(stored, **options)


def full_size(head: SentenceHead, hidden: int) -> int:
    """Return the number of entries of an embedding before it is cut. ``hidden``: the size of the encoder."""
    return head.dense[-1].outputs if head.dense else hidden


def add_sentence_head(
    model: PreTrainedModel, head: SentenceHead, checkpoint: str | None = None, revision: str | None = None
) -> None:
    """Complete a model of an ``embedding_class``: how it pools, and its Dense layers from ``checkpoint``.

    The pooler of a pretrained encoder (a Dense layer for pairs of sentences) is taken out, as no embedding passes it:
    pruning and 8 bits would only change weights that nothing reads. ``save_pretrained`` writes them as they were.
    """
    owner = cast(Any, model)
    owner.sentence_head = head
    pooler = getattr(model, "pooler", None)
    owner.unused_pooler = {}
    if isinstance(pooler, nn.Module):
        owner.unused_pooler = {f"pooler.{name}": value.detach().cpu() for name, value in pooler.state_dict().items()}
        owner.pooler = None
    layers = [nn.Linear(each.inputs, each.outputs, each.bias) for each in head.dense]
    if checkpoint is not None:
        for layer, weights in zip(layers, read_dense_weights(checkpoint, head, revision), strict=True):
            layer.load_state_dict(weights)
    owner.sentence_dense = nn.ModuleList(layers)


def embed(model: PreTrainedModel, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Return the vectors of texts, [rows, size]. ``tokens``: those of their tokens, [rows, tokens, hidden]."""
    head, dense = cast(SentenceHead, model.sentence_head), cast(nn.ModuleList, model.sentence_dense)
    vectors = pool(tokens, mask, head.pooling)
    for layer, settings in zip(dense, head.dense, strict=True):
        vectors = getattr(nn, ACTIVATIONS[settings.activation])()(layer(vectors))
    if head.dimensions is not None:
        vectors = vectors[:, : head.dimensions]
    return normalize(vectors, dim=-1) if head.normalize else vectors


def dense_weights(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    """Return the weights of each Dense layer, by name, on the CPU."""
    return [
        {name: value.detach().cpu() for name, value in layer.state_dict().items()}
        for layer in cast(nn.ModuleList, model.sentence_dense)
    ]


def write_modules(model: PreTrainedModel, directory: str | Path, options: dict[str, Any] | None = None) -> None:
    """Write the files beside an encoder from which sentence-transformers makes the same vectors.

    ``options``: fields of ``SentenceHead``; those of ``OF_TEXTS`` count, and not the model's own.
    """
    of_texts = {name: value for name, value in (options or {}).items() if name in OF_TEXTS}
    head = replace(cast(SentenceHead, model.sentence_head), **of_texts)
    write_sentence_modules(directory, head, dense_weights(model), model.config.hidden_size)


def prompt_remark(model: PreTrainedModel, options: dict[str, Any]) -> str:
    """Return what to know of the prompts of a checkpoint, if it has any and ``options`` has none; empty otherwise.

    ``options``: as of ``sentence_head``.
    """
    prompts = {name: text for name, text in (cast(SentenceHead, model.sentence_head).prompts or {}).items() if text}
    if "prompts" in options or not prompts:
        return ""
    told = ", ".join(f"{name}: {text[:40]!r}" for name, text in prompts.items())
    return (
        f"the checkpoint was trained with prompts ({told}), and none stands before your texts: task.prompt= says which "
        "one should, task.prompt_pair= that of second texts"
    )


def size_of_embedding(model: PreTrainedModel) -> int:
    """Return the number of entries of an embedding."""
    head = cast(SentenceHead, model.sentence_head)
    return head.dimensions or full_size(head, int(model.config.hidden_size))


def is_embedding_model(model: torch.nn.Module) -> bool:
    """Return whether a model's outputs have ``sentence_embedding``."""
    return hasattr(model, "sentence_head")
