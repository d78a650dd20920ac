"""Word embeddings as a product: a narrower table, and a projection from its width to that of the hidden states.

As in ALBERT (Lan et al. 2020, arXiv:1909.11942). A *dimension* is a column of both matrices. It is zeroed in both while
a model trains, and removed by cutting the column out. ``modifiers/embedding_pruning.py`` decides when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparse_xp.errors import UserError, shortened

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: the key of config.json: the dimensions that are left
FACTOR_KEY = "embedding_factor"


class FactoredEmbedding(nn.Sequential):
    """``table`` [vocabulary, dimensions], then ``projection`` [hidden, dimensions].

    Maps token ids [...] to hidden states [..., hidden].
    """

    table: nn.Embedding

    def __init__(self, table: nn.Embedding, projection: nn.Linear):
        super().__init__()
        self.add_module("table", table)
        # Saved models have the projection under the name "map": <word_embeddings>.map.weight.
        self.add_module("map", projection)
        # An empty weight under the name that stock classes give the table. Loading then fails because of its shape,
        # where a missing weight would be initialized at random with a mere warning.
        self.register_buffer("weight", torch.zeros(0, device=table.weight.device))
        #: how many dimensions are to be left at the end of the run; latency tables price the projection by it
        self.final_dimensions = table.embedding_dim

    @property
    def projection(self) -> nn.Linear:
        """The Linear from dimensions to the hidden size."""
        module = self.get_submodule("map")
        assert isinstance(module, nn.Linear)
        return module

    @property
    def factors(self) -> tuple[nn.Embedding, nn.Linear]:
        """Table and projection; a dimension is a column of both weights."""
        return self.table, self.projection

    @classmethod
    def like(cls, table: nn.Embedding, dimensions: int) -> FactoredEmbedding:
        """Return a product of so many ``dimensions`` with fresh weights in place of ``table`` [vocabulary, hidden]."""
        vocabulary, hidden = table.weight.shape
        device = table.weight.device
        narrow = nn.Embedding(vocabulary, dimensions, table.padding_idx, device=device)
        return cls(narrow, nn.Linear(dimensions, hidden, bias=False, device=device))


def principal_factors(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Factor ``weight`` [vocabulary, hidden] along the principal axes of its rows, the longest axis first.

    Returns table [vocabulary, hidden] and projection [hidden, hidden] with table @ projection.T = weight to rounding.
    The columns of the projection are orthonormal, so the table keeps its scale and its learning rate. They are computed
    on the CPU, which gives the same factors for every device.
    """
    exact = weight.detach().cpu().double()
    _, axes = torch.linalg.eigh(exact.T @ exact)
    axes = axes.flip(1)
    return (exact @ axes).to(weight), axes.to(weight)


def find_factored(model: PreTrainedModel) -> FactoredEmbedding | None:
    """Return the factored embeddings of ``model``, or None if they are one table."""
    module = model.get_input_embeddings()
    return module if isinstance(module, FactoredEmbedding) else None


def factor_embeddings(model: PreTrainedModel) -> FactoredEmbedding:
    """Replace the word embeddings of ``model`` by an equal product of full width, unless they are one already.

    Raises UserError for a model that also predicts words with its table (tied embeddings).
    """
    if factored := find_factored(model):
        return factored
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    if model.get_output_embeddings() is not None:
        raise UserError(
            f"{type(model).__name__} predicts words with the table of its embeddings, which cannot be factored, then. "
            "Prune the embeddings in a run of another task."
        )
    hidden = table.embedding_dim
    factored = FactoredEmbedding.like(table, hidden)
    factored.table.weight.data, factored.projection.weight.data = principal_factors(table.weight)
    model.set_input_embeddings(factored)
    setattr(model.config, FACTOR_KEY, hidden)
    return factored


def zero_dimensions(factored: FactoredEmbedding, kept: Tensor) -> None:
    """Zero the columns of both factors where ``kept`` (bool, [dimensions]) is False."""
    for module in factored.factors:
        module.weight.data.mul_(kept)


def count_nonzero_dimensions(factored: FactoredEmbedding, kept: Tensor) -> int:
    """Return the number of nonzero weights of both factors in columns where ``kept`` is False."""
    return sum(int(module.weight.detach()[:, ~kept].count_nonzero()) for module in factored.factors)


def select_dimensions(model: PreTrainedModel, kept: Tensor) -> None:
    """Remove the columns where ``kept`` is False from both factors, and record it in the configuration.

    The parameters stay the same objects, and lose their gradients.
    """
    factored = find_factored(model)
    assert factored is not None
    for module in factored.factors:
        module.weight.grad = None
        module.weight.data = module.weight.data[:, kept].contiguous()
    left = int(kept.sum())
    factored.table.embedding_dim = factored.projection.in_features = factored.final_dimensions = left
    setattr(model.config, FACTOR_KEY, left)


def resize_embeddings(model: PreTrainedModel, dimensions: object) -> None:
    """Give ``model``, built with one table, factored embeddings of so many ``dimensions`` with fresh weights.

    Raises UserError for ``dimensions`` (of a config.json) that are not from 1 to the hidden size.
    """
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    hidden = table.embedding_dim
    if type(dimensions) is not int or not 0 < dimensions <= hidden:
        value = shortened(repr(dimensions), 100)
        raise UserError(
            f"config.json is damaged: its {FACTOR_KEY!r} is {value}, expected a whole number from 1 to {hidden}."
        )
    model.set_input_embeddings(FactoredEmbedding.like(table, dimensions))


def unfactor(model: PreTrainedModel) -> None:
    """Make the factored embeddings of ``model`` one table again, with the same hidden states to rounding."""
    factored = find_factored(model)
    if factored is None:
        return
    table, projection = (module.weight.detach().double() for module in factored.factors)
    weight = (table @ projection.T).float()
    model.set_input_embeddings(
        nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=factored.table.padding_idx)
    )
    delattr(model.config, FACTOR_KEY)
