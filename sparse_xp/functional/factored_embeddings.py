"""The table of word embeddings as a product: a narrower table, and a matrix from its width to that of hidden states.

As in ALBERT (Lan et al. 2020, arXiv:1909.11942). A *dimension* of the factor is a column of both; it is silenced by
zeros in both, and removed by cutting them out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparse_xp.errors import UserError, shortened

#: in config.json: the dimensions of the factor
KEY = "embedding_factor"


class Factored(nn.Sequential):
    """``table`` [words, dimensions], then ``map`` [hidden, dimensions]: numbers of words in, hidden states out."""

    table: nn.Embedding
    map: nn.Linear

    def __init__(self, table: nn.Embedding, map: nn.Linear):
        super().__init__()
        self.add_module("table", table)
        self.add_module("map", map)
        # Under the name of the table that stock classes want: they refuse its shape, instead of making up a table.
        self.register_buffer("weight", torch.zeros(0))
        self.last = table.embedding_dim  # how many dimensions are to be left in the end


def made(words: int, dimensions: int, hidden: int, padding: int | None, like: Tensor | None = None) -> Factored:
    """One with fresh weights, where ``like`` is."""
    device = None if like is None else like.device
    table = nn.Embedding(words, dimensions, padding, device=device)
    return Factored(table, nn.Linear(dimensions, hidden, bias=False, device=device))


def principal(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[words, hidden] as table [words, hidden] and map [hidden, hidden] with table @ map.T = weight, to rounding.

    The columns of ``map`` are orthonormal: the principal axes of the rows, the longest first. So the table has the
    scale that it had, and a learning rate means the same for it.
    """
    exact = weight.detach().double()
    _, axes = torch.linalg.eigh(exact.T @ exact)
    axes = axes.flip(1)
    return (exact @ axes).to(weight.dtype), axes.to(weight.dtype)


def find(model: Any) -> Factored | None:
    """The factored embeddings of ``model``, None if they are one table."""
    found = model.get_input_embeddings()
    return found if isinstance(found, Factored) else None


def factor(model: Any) -> Factored:
    """Make the word embeddings of ``model`` a product, in place, with all of its dimensions; or find that they are.

    Raises UserError for a model that puts the table to another use, too.
    """
    if known := find(model):
        return known
    table = model.get_input_embeddings()
    if model.get_output_embeddings() is not None:
        raise UserError(
            f"{type(model).__name__} predicts words with the table of its embeddings, which cannot be factored, then. "
            "Prune the embeddings in a run of another task."
        )
    words, hidden = table.weight.shape
    found = made(words, hidden, hidden, table.padding_idx, table.weight)
    found.table.weight.data, found.map.weight.data = principal(table.weight)
    model.set_input_embeddings(found)
    setattr(model.config, KEY, hidden)
    return found


def silence(factored: Factored, kept: Tensor) -> None:
    """Put zeros into the columns of both that ``kept`` [dimensions], bool, does not keep."""
    for module in (factored.table, factored.map):
        module.weight.data.mul_(kept)


def loud(factored: Factored, kept: Tensor) -> int:
    """How many weights that ``kept`` does not keep are not zero."""
    return sum(int(m.weight.detach()[:, ~kept].count_nonzero()) for m in (factored.table, factored.map))


def cut(model: Any, kept: Tensor) -> None:
    """Remove the columns that are not ``kept``, and say so in the configuration; parameters stay the same objects."""
    factored = find(model)
    assert factored is not None
    for module in (factored.table, factored.map):
        module.weight.grad = None
        module.weight.data = module.weight.data[:, kept].contiguous()
    left = int(kept.sum())
    factored.table.embedding_dim = factored.map.in_features = factored.last = left
    setattr(model.config, KEY, left)


def resize(model: Any, dimensions: int) -> None:
    """Give ``model``, with one table, factored embeddings of so many dimensions and fresh weights.

    Raises UserError for dimensions, which a configuration tells of, that no table has.
    """
    table = model.get_input_embeddings()
    words, hidden = table.weight.shape
    if type(dimensions) is not int or not 0 < dimensions <= hidden:
        told = shortened(repr(dimensions), 100)
        raise UserError(f"config.json is damaged: its {KEY!r} is {told}, want a whole number from 1 to {hidden}.")
    model.set_input_embeddings(made(words, dimensions, hidden, table.padding_idx, table.weight))


def merge(model: Any) -> None:
    """Undo ``factor`` and what was cut, in place: one table again, the same hidden states to rounding."""
    factored = find(model)
    if factored is None:
        return
    weight = (factored.table.weight.detach().double() @ factored.map.weight.detach().double().T).float()
    model.set_input_embeddings(
        nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=factored.table.padding_idx)
    )
    delattr(model.config, KEY)
