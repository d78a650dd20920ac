"""Records of what was measured on a model: its sparsity, and what structured pruning removed. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparse_xp.text import abbreviate_counts


@dataclass
class Removed:
    """The parts of a model that structured pruning removed, and the remaining sizes.

    ``share``: the removed fraction of the weights of the encoder's matrices. ``heads``, ``neurons``: their number in
    each remaining layer. ``layers``: the layers removed as a whole, by their numbers in the full model, from 0.
    ``embeddings``: the remaining dimensions of factored word embeddings, None if they are one table.
    """

    share: float
    heads: list[int]
    neurons: list[int]
    layers: list[int] = field(default_factory=list)
    embeddings: int | None = None

    @property
    def description(self) -> str:
        """The numbers in a phrase: 50.0% of the encoder removed (heads 6 in 6 layers; neurons 768 in 6 layers)."""
        left = f"heads {abbreviate_counts(self.heads)}; neurons {abbreviate_counts(self.neurons)}"
        layers = f"; without layers {' '.join(map(str, self.layers))}" if self.layers else ""
        embeddings = f"; embeddings of {self.embeddings} dimensions" if self.embeddings else ""
        return f"{self.share:.1%} of the encoder removed ({left}{layers}{embeddings})"


@dataclass
class Sparsity:
    """Fractions of exact zeros among the weights that a model still has.

    ``prunable``: of the weights that the recipe may prune. ``encoder``: of all encoder layers. ``model``: of the whole
    model. ``layers``: of each prunable matrix, by its name. ``removed``: the weights that structured pruning removed,
    which these fractions do not count; None if it removed none.
    """

    prunable: float
    encoder: float
    model: float
    layers: dict[str, float]
    removed: Removed | None = None
