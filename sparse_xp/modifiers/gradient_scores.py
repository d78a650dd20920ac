"""Scores that are gathered from gradients over the steps of a run.

No torch is imported: only methods of tensors are called.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparse_xp.errors import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.modifiers.context import Devices

#: values of the option ``score`` of structured pruning and of embedding pruning
SCORES = ("first_order", "second_order", "magnitude")


def check_score(kind: str, score: str, decay: float) -> None:
    """Raise ValueError for an unknown ``score`` or an impossible ``decay`` of the modifier ``kind``."""
    if score not in SCORES:
        raise ValueError(f"{kind}.score={score}: expected one of {', '.join(SCORES)}.{did_you_mean(score, SCORES)}")
    if not 0 <= decay <= 1:
        raise ValueError(f"{kind}.decay={decay}: expected a factor from 0 (the last step alone) to 1 (a plain sum).")


def all_finite(*tensors: Tensor) -> bool:
    """Return whether no tensor holds NaN or infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def unscaled(terms: dict[str, Tensor], accelerator: Devices) -> dict[str, Tensor] | None:
    """Return ``terms``, products of gradients of this step, without the loss scale of fp16.

    Returns None for infinite gradients: the gradient scaler skips that step, and so must the scores.
    """
    scaler = accelerator.scaler
    if scaler is None:
        return terms
    if not all_finite(*terms.values()):
        return None
    return {name: term / scaler.get_scale() for name, term in terms.items()}


@dataclass
class GateScores:
    """Decayed sums over steps of |dL/dg| (``first_order``) or of its square (``second_order``), for gates g = 1.

    Michel et al. 2019, arXiv:1905.10650; Molchanov et al. 2017, arXiv:1611.06440. The squares are the diagonal of the
    Fisher information (Theis et al. 2018, arXiv:1801.05787). ``sums``: by name of a group of gates, [gates], float32.
    """

    score: str
    decay: float
    sums: dict[str, Tensor] = field(default_factory=dict)

    @property
    def needs_gradients(self) -> bool:
        """Whether the scores come from gradients; magnitudes are read off the weights when they are needed."""
        return self.score != "magnitude"

    def add(self, gradients: dict[str, Tensor], accelerator: Devices) -> None:
        """Add dL/dg of this step, [gates] for each group, as they are before unscaling and clipping."""
        terms = unscaled(gradients, accelerator)
        for name, term in ({} if terms is None else terms).items():
            value = term.square() if self.score == "second_order" else term.abs()
            self.sums[name] = value if name not in self.sums else self.decay * self.sums[name] + value
