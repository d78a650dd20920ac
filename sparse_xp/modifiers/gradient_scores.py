"""Scores that are gathered from gradients over the steps of a run.

torch is imported late: composing a configuration must not load it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparse_xp.clock import TimeSpec
from sparse_xp.errors import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.modifiers.context import Devices

#: values of the option ``score`` that structured pruning and embedding pruning have in common
SCORES = ("first_order", "second_order", "magnitude")


def check_score(kind: str, score: str, decay: float, known: Sequence[str] = SCORES) -> None:
    """Raise ValueError for a ``score`` that is not ``known``, or an impossible ``decay``, of the modifier ``kind``."""
    if score not in known:
        raise ValueError(f"{kind}.score={score}: expected one of {', '.join(known)}.{did_you_mean(score, known)}")
    if not 0 <= decay <= 1:
        raise ValueError(f"{kind}.decay={decay}: expected a factor from 0 (the last step alone) to 1 (a plain sum).")


def all_finite(*tensors: Tensor) -> bool:
    """Return whether no tensor holds NaN or infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def unscale(terms: list[Tensor], accelerator: Devices) -> Tensor | None:
    """Divide ``terms``, products of gradients of this step in float32, by the loss scale of fp16, in place.

    Returns 1 if a term is not finite, else 0, as a scalar on their device; None without a gradient scaler. The scaler
    skips a step with infinite gradients, and so must the scores. Nothing waits for the device.
    """
    scaler = accelerator.scaler
    if scaler is None or not terms:
        return None
    import torch

    infinite = torch.zeros((), device=terms[0].device)
    scale = scaler.scale(torch.ones_like(infinite))  # ``get_scale`` would wait for the device
    # The operation with which the scaler itself unscales gradients: one pass over all terms.
    torch._amp_foreach_non_finite_check_and_unscale_(terms, infinite, scale.reciprocal())
    return infinite


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
        """Whether the scores come from gradients; others are found when they are needed."""
        return self.score in ("first_order", "second_order")

    @property
    def is_empty(self) -> bool:
        """Whether no step has added anything yet: there was none, or the gradient scaler has skipped all of them."""
        return not any(bool(values.any()) for values in self.sums.values())

    def why_empty(self, start: TimeSpec, removed: str) -> str:
        """Return how the sentence goes on that nothing is known although ``removed`` is to go from ``start`` on."""
        if self.sums:
            return "at the end of the removal: no step so far has had a gradient that is finite and not zero."
        return f"at the first step, where start={start} removes {removed} already."

    def add(self, gradients: dict[str, Tensor], accelerator: Devices, scaled: bool = True) -> None:
        """Add dL/dg of this step, [gates] for each group, as they are before unscaling and clipping.

        ``scaled``: whether the gradient scaler of fp16 has scaled them.
        """
        import torch

        # All groups as one tensor: a GPU computes a few numbers as fast as all of them, and starting it takes longer.
        terms = torch.cat([gradient.flatten() for gradient in gradients.values()])
        infinite = unscale([terms], accelerator) if scaled else None
        before = torch.cat([self.sums.get(name, gradient.new_zeros(gradient.shape)).flatten()
                            for name, gradient in gradients.items()])  # fmt: skip
        after = self.decay * before + (terms.square() if self.score == "second_order" else terms.abs())
        if infinite is not None:
            after = torch.where(infinite > 0, before, after)
        parts = after.split([gradient.numel() for gradient in gradients.values()])
        for (name, gradient), part in zip(gradients.items(), parts, strict=True):
            self.sums[name] = part.view(gradient.shape)
