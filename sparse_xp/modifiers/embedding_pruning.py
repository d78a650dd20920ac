"""Narrower word embeddings: a small model's table is half of its bytes.

The tensor functions are in ``sparse_xp.functional.factored_embeddings``, the scores those of ``sparse_xp.functional.structured``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock, When, parse_when
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.functional.cost_model import between
from sparse_xp.functional.schedules import progress, scheduled_sparsity, update_due
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.pruning import INTER_FUNCS, Pruning, updates_window
from sparse_xp.modifiers.structured_pruning import SCORES

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.training.state import Run


@dataclass(kw_only=True)
class EmbeddingPruning(Modifier):
    """The word embeddings become a table and a matrix behind it, whose common dimensions go from ``start`` to ``end``.

    ``final_sparsity``: the part of the dimensions that goes, of as many as the hidden states have; a whole
    ``multiple`` of them stays. At first the product is the table that there was, along its principal axes. The lowest
    scores go, as in ``StructuredPruning``: ``score`` and ``decay`` are those, for a gate before each dimension. What is
    silenced stays silenced.
    """

    start: When = "10%"
    end: When = "60%"
    final_sparsity: float | None = None
    score: str = "first_order"
    decay: float = 0.99
    multiple: int = 16
    inter_func: str = "cubic"
    update_frequency: When = 0.05

    structural: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = type(self).__name__
        for name, known in (("score", SCORES), ("inter_func", INTER_FUNCS)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{kind}.{name}={value}: want one of {', '.join(known)}.{did_you_mean(value, known)}")
        if self.final_sparsity is None or not 0 < self.final_sparsity < 1:
            raise ValueError(
                f"{kind}.final_sparsity={self.final_sparsity}: want the part of the embeddings' dimensions that goes, "
                "strictly between 0 and 1."
            )
        if self.multiple < 1:
            raise ValueError(f"{kind}.multiple={self.multiple}: want at least 1.")
        if not 0 <= self.decay <= 1:
            raise ValueError(
                f"{kind}.decay={self.decay}: want a factor from 0 (the last step alone) to 1 (a plain sum)."
            )
        parse_when(self.update_frequency, f"{kind}.update_frequency")

    @property
    def occupies(self) -> str:
        return "dimensions of the embeddings"

    def window(self, clock: Clock) -> tuple[float, float]:
        return updates_window(type(self).__name__, self.start, *super().window(clock), clock)

    def attach(self, run: Run) -> None:
        import torch

        from sparse_xp.functional.factored_embeddings import factor
        from sparse_xp.functional.structured import blocks

        blocks(run.model)  # of a kind that can be loaded again
        assert self.final_sparsity is not None
        known = self.factored = factor(run.model)
        hidden, self.first = known.map.weight.shape
        self.last = int((1 - self.final_sparsity) * hidden + 1e-9) // self.multiple * self.multiple
        if self.last < 1:
            raise UserError(
                f"EmbeddingPruning: final_sparsity={self.final_sparsity:g} leaves no {self.multiple} of {hidden} "
                "dimensions. Want less, or a smaller multiple."
            )
        if self.last >= self.first:
            raise UserError(
                f"EmbeddingPruning: final_sparsity={self.final_sparsity:g} is reached with nothing removed: the "
                f"embeddings of {run.source} have {self.first} of {hidden} dimensions. Want more."
            )
        known.last = self.last
        self.kept = torch.ones(self.first, dtype=torch.bool)
        self.gathered: Tensor | None = None
        self.last_update = -1.0

    def before_step(self, run: Run) -> None:
        start, end = self.window(run.clock)
        now = run.clock.epoch(run.progress.step)
        if update_due(now, self.last_update, start, end, run.clock.at(self.update_frequency)):
            self.choose(progress(now, start, end))
            self.last_update = now
            self.enforce()

    def choose(self, done: float) -> None:
        """Silence what has to go when ``done`` of the window is over."""
        import torch

        from sparse_xp.functional.structured import without_lowest

        self.kept = self.kept.to(self.factored.map.weight.device)
        if done > 0 and self.score != "magnitude" and self.gathered is None:
            raise UserError(
                f"EmbeddingPruning: nothing is known of the embeddings at the first step, where start={self.start} "
                "wants dimensions removed. Start later, or take score=magnitude."
            )
        share = scheduled_sparsity(self.inter_func, 0.0, 1.0, done)
        if share == 0:
            return
        scores = self.scores()
        if not bool(torch.isfinite(scores).all()):
            raise UserError("EmbeddingPruning: the scores of the embeddings are not finite: training has diverged.")
        _, left = between((1, self.first), (1, self.last), share, self.multiple)
        self.kept = without_lowest(scores, self.kept, left)

    def scores(self) -> Tensor:
        """What each dimension is worth, float32."""
        if self.gathered is not None:
            return self.gathered
        # The product of both norms: what a dimension adds to the table, however it is divided between its factors.
        table, matrix = (m.weight.detach().float().square().sum(0) for m in (self.factored.table, self.factored.map))
        return table * matrix

    def before_update(self, run: Run) -> None:
        import torch

        from sparse_xp.functional.structured import gate_gradients

        if self.score == "magnitude" or self.reached(run):
            return
        weight = self.factored.map.weight
        if weight.grad is None:
            raise UserError(
                f"EmbeddingPruning: the embeddings do not train, so that score={self.score} knows nothing of them. Let "
                "them train, or take score=magnitude."
            )
        term = gate_gradients(weight, weight.grad, 1)
        if scaler := run.accelerator.scaler:  # fp16: gradients are scaled still, and infinite ones make no step
            if not bool(torch.isfinite(term).all()):
                return
            term = term / scaler.get_scale()
        term = term.square() if self.score == "second_order" else term.abs()
        self.gathered = term if self.gathered is None else self.decay * self.gathered + term

    def after_update(self, run: Run) -> None:
        # With zeros on both sides there is no gradient, but Adam's momentum goes on.
        self.enforce()

    def enforce(self) -> None:
        """Zeros into what is silenced."""
        from sparse_xp.functional.factored_embeddings import silence

        if self.last_update >= 0:
            silence(self.factored, self.kept)

    def check(self, run: Run) -> None:
        from sparse_xp.functional.factored_embeddings import loud

        if revived := loud(self.factored, self.kept.to(self.factored.map.weight.device)):
            raise RuntimeError(
                f"{revived} removed weights of the embeddings are no longer zero at step {run.progress.step}."
            )

    def detach(self, run: Run) -> None:
        from sparse_xp.functional.factored_embeddings import cut

        self.check(run)
        self.kept = self.kept.to(self.factored.map.weight.device)
        ours = {id(module.weight) for module in (self.factored.table, self.factored.map)}
        for other in run.recipe.modifiers.values():  # their masks are of the weights that are there
            if isinstance(other, Pruning):
                for name, mask in other.masks.items():
                    if id(other.targets[name]) in ours:
                        other.masks[name] = mask[:, self.kept]
        cut(run.model, self.kept)
        self.kept = self.kept[self.kept]

    def reached(self, run: Run) -> bool:
        return self.last_update >= self.window(run.clock)[1]

    def logs(self, run: Run) -> dict[str, float]:
        return {"embeddings": float(self.kept.sum())}

    def state_dict(self) -> dict[str, Any]:
        known = {} if self.gathered is None else {"gathered": self.gathered}
        return {"kept": self.kept, "last_update": self.last_update, **known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept, self.last_update, self.gathered = state["kept"], state["last_update"], state.get("gathered")
