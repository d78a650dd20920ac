"""Attention distributions of encoder layers, computed from the outputs of the query and key projections.

They are those before dropout, whichever kernel computes the model's own attention. ``modifiers/attention_distillation``
compares those of a student with a teacher's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparse_xp.errors import UserError
from sparse_xp.functional.architectures import LAYER, architecture_of
from sparse_xp.functional.layers import encoder_layers, model_type_of, weighted_paths

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: kinds of layers (``Architecture.name``) whose attention is softmax(queries * keys / sqrt(size of a head)), and models
#: with such layers that rotate queries and keys
PLAIN, ROTARY = ("bert", "distilbert"), ("roformer",)


@dataclass(frozen=True)
class AttentionLayer:
    """The projections of an encoder layer, and the size of its heads. ``number``: that in the name of the layer."""

    number: int
    query: nn.Module
    key: nn.Module
    head_size: int
    heads: int


def attention_layers(model: PreTrainedModel, whose: str) -> list[AttentionLayer]:
    """Return the attention of each encoder layer that is not bypassed. Raises UserError for other kinds of attention.

    ``whose``: the student or the teacher, for messages.
    """
    found = []
    for name, layer in encoder_layers(model).items():
        architecture = architecture_of(model_type_of(model), weighted_paths(layer))
        if architecture is None or architecture.name not in PLAIN or model_type_of(model) in ROTARY:
            break
        query, key = (layer.get_submodule(path) for path in architecture.query_key_value[:2])
        size = getattr(layer.get_submodule(architecture.self_attention), architecture.head_size)
        match = LAYER.search(name)
        assert match is not None
        found.append(
            AttentionLayer(int(match["number"]), query, key, size, query.get_parameter("weight").shape[0] // size)
        )
    else:
        if found:
            return found
    raise UserError(
        f"AttentionDistillation: the attention of {whose}, a {type(model).__name__}, is of another kind than BERT's. "
        "It compares BERT, RoBERTa, XLM-R, ELECTRA, MiniLM and DistilBERT."
    )


def attention_log_probabilities(query: Tensor, key: Tensor, head_size: int, mask: Tensor) -> Tensor:
    """Return the logarithms of the attention probabilities, float32 [rows, heads, queries, keys].

    ``query``, ``key``: outputs of the projections, [rows, tokens, heads * ``head_size``]. ``mask`` [rows, tokens] bool:
    False for padding, which no query attends to.
    """
    query, key = (values.float().unflatten(-1, (-1, head_size)).transpose(1, 2) for values in (query, key))
    scores = query @ key.transpose(-1, -2) / head_size**0.5
    logarithms: Tensor = scores.masked_fill(~mask[:, None, None, :], torch.finfo(torch.float32).min).log_softmax(-1)
    return logarithms


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor, kind: str = "kl", average: bool = False) -> Tensor:
    """Return the distance of attention distributions, a mean over heads and over the queries in ``mask``.

    ``student``, ``teacher``: log-probabilities [rows, heads, queries, keys]. ``kind``: ``kl``: KL(teacher || student)
    over the keys (MiniLM, Wang et al. 2020, arXiv:2002.10957, eq. 4); ``mse``: the sum of squared differences.
    ``average``: compare the means over heads, so that their numbers may differ.
    """
    if average:
        student, teacher = (values.exp().mean(1, keepdim=True).clamp_min(1e-30).log() for values in (student, teacher))
    difference = teacher.exp() - student.exp()
    terms = teacher.exp() * (teacher - student) if kind == "kl" else difference.square()
    keys = mask[:, None, None, :]
    return terms.masked_fill(~keys, 0.0).sum(-1).mean(1)[mask].mean()
