"""Records of what was measured on a model: its sparsity, and what structured pruning removed. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparse_xp.text import in_short


@dataclass
class Removed:
    """What structured pruning took: ``share`` of the weights of the encoder's matrices; what each layer has left.

    ``layers``: those that went whole, by their numbers in the full model, from 0. ``embeddings``: the dimensions that
    the word embeddings' factor has left, None if they are one table.
    """

    share: float
    heads: list[int]
    neurons: list[int]
    layers: list[int] = field(default_factory=list)
    embeddings: int | None = None

    def told(self) -> str:
        """In words: 50.0% of the encoder removed (heads 6 in 6 layers; neurons 768 in 6 layers)."""
        left = f"heads {in_short(self.heads)}; neurons {in_short(self.neurons)}"
        gone = f"; without layers {' '.join(map(str, self.layers))}" if self.layers else ""
        words = f"; embeddings of {self.embeddings} dimensions" if self.embeddings else ""
        return f"{self.share:.1%} of the encoder removed ({left}{gone}{words})"


@dataclass
class Sparsity:
    """Fractions of exact zeros: of the weights the recipe may prune, of all encoder layers, of the whole model.

    All of them of the weights that are there; ``removed`` are those that are not, None: none.
    """

    prunable: float
    encoder: float
    model: float
    layers: dict[str, float]
    removed: Removed | None = None
