"""Narrower word embeddings: the table is half of the bytes of a small model.

The tensor functions are in ``functional/factored_embeddings.py`` and ``functional/structured/scores.py``. torch is
imported late: composing a configuration must not load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.functional.cost_model import interpolate_size
from sparse_xp.functional.schedules import RAMPS, share_due
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.gradient_scores import GateScores, all_finite, check_score
from sparse_xp.modifiers.gradual_pruning import updates_window

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from sparse_xp.modifiers.context import HookContext

#: the key of ``GateScores.sums``
GATES = "dimensions"


@dataclass(kw_only=True)
class EmbeddingPruning(Modifier):
    """Factor the word embeddings, and remove more and more dimensions of the factors from ``start`` to ``end``.

    The embeddings become a table and a projection; at first their product is the old table along its principal axes.
    The dimensions with the lowest scores are removed. Removed dimensions never come back.

    Attributes:
        final_sparsity: The fraction of the hidden size to remove, strictly between 0 and 1.
        score: The score of a dimension, for a gate on it: as in ``StructuredPruning``.
        decay: The factor by which the sums of the score shrink in every step.
        multiple: A whole multiple of this number of dimensions stays.
        inter_func: The curve of the sparsity: ``cubic``, ``linear`` or ``inverse_cubic``.
        update_frequency: The time between two updates.
    """

    start: TimeSpec = "10%"
    end: TimeSpec = "60%"
    final_sparsity: float | None = None
    score: str = "first_order"
    decay: float = 0.99
    multiple: int = 16
    inter_func: str = "cubic"
    update_frequency: TimeSpec = 0.05

    changes_structure: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = type(self).__name__
        check_score(kind, self.score, self.decay)
        if self.inter_func not in RAMPS:
            raise ValueError(
                f"{kind}.inter_func={self.inter_func}: expected one of {', '.join(RAMPS)}."
                f"{did_you_mean(self.inter_func, RAMPS)}"
            )
        if self.final_sparsity is None or not 0 < self.final_sparsity < 1:
            raise ValueError(
                f"{kind}.final_sparsity={self.final_sparsity}: expected the part of the embeddings' dimensions to "
                "remove, strictly between 0 and 1."
            )
        if self.multiple < 1:
            raise ValueError(f"{kind}.multiple={self.multiple}: expected at least 1.")
        parse_time(self.update_frequency, f"{kind}.update_frequency")

    @property
    def exclusive_resource(self) -> str:
        return "dimensions of the embeddings"

    def window(self, clock: Clock) -> tuple[float, float]:
        return updates_window(type(self).__name__, self.start, *super().window(clock), clock)

    def check_model(self, model: PreTrainedModel) -> None:
        from sparse_xp.functional.structured.blocks import encoder_blocks

        encoder_blocks(model)  # raises UserError for a kind of encoder that could not be loaded again
        if not hasattr(model, "get_input_embeddings"):
            raise UserError(
                f"EmbeddingPruning: a {type(model).__name__} does not say which module is its table of embeddings. "
                "Reduce a model of transformers."
            )

    def attach(self, context: HookContext) -> None:
        import torch

        from sparse_xp.functional.factored_embeddings import factor_embeddings

        self.check_model(context.model)
        self.factored = factor_embeddings(context.model)
        hidden, self.initial_dimensions = self.factored.projection.weight.shape
        self.final_dimensions = self.count_final(hidden)
        if self.final_dimensions >= self.initial_dimensions:
            raise UserError(
                f"EmbeddingPruning: final_sparsity={self.final_sparsity:g} is reached with nothing removed: the "
                f"embeddings of {context.source} have {self.initial_dimensions} of {hidden} dimensions. Ask for more."
            )
        self.factored.final_dimensions = self.final_dimensions
        device = self.factored.projection.weight.device
        self.mask = torch.ones(self.initial_dimensions, dtype=torch.bool, device=device)  # True keeps
        self.gate_scores = GateScores(self.score, self.decay)
        self.last_update = -1.0

    def count_final(self, hidden: int) -> int:
        """Return how many of ``hidden`` dimensions to leave. Raises UserError if that is less than ``multiple``."""
        assert self.final_sparsity is not None
        left = int((1 - self.final_sparsity) * hidden + 1e-9) // self.multiple * self.multiple
        if left < 1:
            raise UserError(
                f"EmbeddingPruning: final_sparsity={self.final_sparsity:g} leaves no {self.multiple} of {hidden} "
                "dimensions. Ask for less, or a smaller multiple."
            )
        return left

    def before_step(self, context: HookContext) -> None:
        now, every = context.clock.epoch(context.step), context.clock.to_epochs(self.update_frequency)
        window, ramp_end = self.window(context.clock), context.clock.to_epochs(self.end)
        share = share_due(self.inter_func, now, self.last_update, window, ramp_end, every)
        if share is not None:
            self.choose(share)
            self.last_update = now
            self.zero_removed()

    def choose(self, share: float) -> None:
        """Extend the mask until ``share`` of the removal is reached. Raises UserError without usable scores."""
        from sparse_xp.functional.structured.scores import without_lowest

        self.mask = self.mask.to(self.factored.projection.weight.device)
        if share == 0:
            return
        if self.gate_scores.needs_gradients and self.gate_scores.is_empty:
            if self.gate_scores.sums and share < 1:
                return  # the gradient scaler has skipped every step so far; the next update removes more
            raise UserError(
                "EmbeddingPruning: nothing is known of the embeddings "
                f"{self.gate_scores.why_empty(self.start, 'dimensions')} Start later, or take score=magnitude."
            )
        scores = self.scores()
        if not all_finite(scores):
            raise UserError("EmbeddingPruning: the scores of the embeddings are not finite: training has diverged.")
        _, left = interpolate_size((1, self.initial_dimensions), (1, self.final_dimensions), share, self.multiple)
        self.mask = without_lowest(scores, self.mask, left)

    def scores(self) -> Tensor:
        """Return the score of each dimension [dimensions], float32."""
        if GATES in self.gate_scores.sums:
            return self.gate_scores.sums[GATES]
        # The product of both norms: what a dimension adds to the table, however it is divided between the factors.
        table, projection = (module.weight.detach().float().square().sum(0) for module in self.factored.factors)
        return table * projection

    def before_update(self, context: HookContext) -> None:
        from sparse_xp.functional.structured.scores import gate_gradients

        if not self.gate_scores.needs_gradients or self.target_reached(context):
            return
        weight = self.factored.projection.weight
        if weight.grad is None:
            raise UserError(
                f"EmbeddingPruning: the embeddings do not train, so that score={self.score} knows nothing of them. Let "
                "them train, or take score=magnitude."
            )
        self.gate_scores.add({GATES: gate_gradients(weight, weight.grad, 1)}, context.accelerator)

    def after_update(self, context: HookContext) -> None:
        # With zeros in both factors there is no gradient, but Adam's momentum still moves them.
        self.zero_removed()

    def zero_removed(self) -> None:
        """Zero the removed dimensions."""
        from sparse_xp.functional.factored_embeddings import zero_dimensions

        if self.last_update >= 0:
            zero_dimensions(self.factored, self.mask)

    def check(self, context: HookContext) -> None:
        from sparse_xp.functional.factored_embeddings import count_nonzero_dimensions

        mask = self.mask.to(self.factored.projection.weight.device)
        if revived := count_nonzero_dimensions(self.factored, mask):
            raise RuntimeError(
                f"{revived} removed weights of the embeddings are no longer zero at step {context.step}."
            )

    def detach(self, context: HookContext) -> None:
        from sparse_xp.functional.factored_embeddings import select_dimensions

        self.check(context)
        self.mask = self.mask.to(self.factored.projection.weight.device)
        # Other modifiers cut what they keep about these parameters, such as masks, before the parameters change.
        factors = {id(module.weight) for module in self.factored.factors}
        names = [name for name, weight in context.model.named_parameters() if id(weight) in factors]
        context.resized(dict.fromkeys(names, lambda values: values[:, self.mask]))
        select_dimensions(context.model, self.mask)
        self.mask = self.mask[self.mask]

    def target_reached(self, context: HookContext) -> bool:
        return self.last_update >= self.window(context.clock)[1]

    def logs(self, context: HookContext) -> dict[str, float]:
        return {"embeddings": float(self.mask.sum())}

    def state_dict(self) -> dict[str, Any]:
        sums = self.gate_scores.sums
        return {"kept": self.mask, "last_update": self.last_update, **({"gathered": sums[GATES]} if sums else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mask, self.last_update = state["kept"], state["last_update"]
        self.gate_scores.sums = {GATES: state["gathered"]} if "gathered" in state else {}
