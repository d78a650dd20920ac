"""Soft movement pruning: learn a score for each weight, and prune what falls below a threshold (Sanh et al. 2020).

How sparse the model becomes is learned too. torch is imported late, inside the hooks: composing a configuration must
not load it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.errors import UserError, check_one_of
from sparse_xp.functional.schedules import RAMPS, ramp_progress, scheduled_sparsity, update_due
from sparse_xp.modifiers.display import LoggedNumber, Span, held_spans
from sparse_xp.modifiers.gradient_scores import unscale
from sparse_xp.modifiers.gradual_pruning import updates_window
from sparse_xp.modifiers.pruning import Pruning, decay_remembered

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from sparse_xp.modifiers.context import HookContext


@dataclass(kw_only=True)
class SoftMovementPruning(Pruning):
    """Soft movement pruning (Sanh et al. 2020, arXiv:2005.07683, section 4).

    Every weight W has a score S, 0 at first. W is pruned while sigmoid(S) <= threshold. Scores are trained by Adam from
    the first step of the run: the gradient of S is that of the masked weight times W (straight through the mask), and
    the loss has a penalty lambda * mean(sigmoid(S)), a mean over matrices. A pruned weight keeps its value, and comes
    back with it if its score rises again.

    Threshold and lambda rise from 0 at ``start`` along ``inter_func``; at ``end`` the masks are final. A larger
    ``final_lambda`` makes a sparser model. Its sparsity is no setting: the log has it, and ``recipe.sparsity`` has no
    effect.

    Attributes:
        start: The time of the first update of the masks, in epochs, ``'N steps'`` or ``'N%'`` of the run.
        end: The time of the last update. Where the run ends then, its last step makes it.
        final_threshold: The threshold at ``end``, strictly between 0 and 1. A new score is at 0.5.
        final_lambda: The weight of the penalty at ``end``. The paper uses up to 400 for BERT-base.
        score_learning_rate: The learning rate of the scores.
        inter_func: The curve of threshold and lambda: ``cubic``, ``linear`` or ``inverse_cubic``.
        update_frequency: The time between two updates of the masks.
    """

    final_threshold: float = 0.1
    final_lambda: float = 400.0
    score_learning_rate: float = 0.01
    inter_func: str = "cubic"
    update_frequency: TimeSpec = "1 step"

    decides_sparsity: ClassVar[bool] = True
    logged: ClassVar[tuple[LoggedNumber, ...]] = (*Pruning.logged, LoggedNumber("threshold", 55))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.final_threshold < 1:
            raise ValueError(
                f"SoftMovementPruning.final_threshold={self.final_threshold}: expected a number strictly between 0 "
                "and 1."
            )
        if not 0 <= self.final_lambda < float("inf"):
            raise ValueError(f"SoftMovementPruning.final_lambda={self.final_lambda}: expected a weight of at least 0.")
        if not 0 < self.score_learning_rate <= 1:
            raise ValueError(
                f"SoftMovementPruning.score_learning_rate={self.score_learning_rate}: expected a rate in (0, 1]."
            )
        check_one_of("SoftMovementPruning.inter_func", self.inter_func, tuple(RAMPS))
        parse_time(self.update_frequency, "SoftMovementPruning.update_frequency")
        self.forget()

    def forget(self) -> None:
        """Drop all that was learned about the weights."""
        self.masks: dict[str, Tensor] = {}
        self.scores: dict[str, Tensor] = {}  # by target, float32, until the masks are final
        self.values: dict[str, Tensor] = {}  # of the pruned weights, 0 elsewhere
        self.moments: dict[int, dict[str, Any]] = {}  # of Adam, as a checkpoint has them, by number of the target
        self.score_optimizer: Optimizer | None = None
        self.last_update = -1.0  # in epochs; below 0: none yet

    # The schedule

    def window(self, clock: Clock) -> tuple[float, float]:
        start, end = updates_window(type(self).__name__, self.start, *super().window(clock), clock)
        # Adam moves a score by about its rate in each step, and sigmoid(-distance) is the threshold.
        steps, distance = clock.first_step(end), math.log(1 / self.final_threshold - 1)
        if steps * self.score_learning_rate < distance:
            raise ValueError(
                f"SoftMovementPruning: in {steps} steps at score_learning_rate={self.score_learning_rate:g} no score "
                f"can fall to final_threshold={self.final_threshold:g}: nothing would be pruned. Train longer, or "
                f"raise the rate to {1.5 * distance / max(1, steps):.1g} or more."
            )
        return start, end

    def threshold(self, clock: Clock, step: int) -> float:
        """Return the threshold in ``step``."""
        over = ramp_progress(clock.epoch(step), self.window(clock), clock.to_epochs(self.end))
        return scheduled_sparsity(self.inter_func, 0.0, self.final_threshold, over)

    def is_update_due(self, clock: Clock, now: float, last: float) -> bool:
        """Return whether the step at ``now`` updates the masks, given the ``last`` update; both in epochs."""
        return update_due(now, last, *self.window(clock), clock.to_epochs(self.update_frequency))

    def levels_by_step(self, clock: Clock) -> dict[int, float | None]:
        return {clock.first_step(self.window(clock)[0]): None}

    def spans(self, clock: Clock) -> list[Span]:
        return held_spans(self.window(clock), clock)

    def target_reached(self, context: HookContext) -> bool:
        return self.last_update >= self.window(context.clock)[1]

    # Hooks

    def attach(self, context: HookContext) -> None:
        import torch

        super().attach(context)
        self.forget()
        self.scores = {name: torch.zeros_like(w.detach(), dtype=torch.float32) for name, w in self.targets.items()}

    def before_step(self, context: HookContext) -> None:
        now = context.clock.epoch(context.step)
        if self.is_update_due(context.clock, now, self.last_update):
            self.update_masks(self.threshold(context.clock, context.step))
            self.last_update = now
            if self.target_reached(context):
                if all(bool(mask.all()) for mask in self.masks.values()):
                    raise UserError(
                        f"SoftMovementPruning: the masks are final at step {context.step}, and no score has fallen to "
                        f"final_threshold={self.final_threshold:g}: nothing is pruned. Raise score_learning_rate or "
                        "final_lambda, or train longer."
                    )
                if not any(bool(mask.any()) for mask in self.masks.values()):
                    raise UserError(
                        f"SoftMovementPruning: at step {context.step} every score has fallen to the threshold: all "
                        "weights would be zero. Lower final_lambda or score_learning_rate."
                    )
                self.scores, self.values, self.moments, self.score_optimizer = {}, {}, {}, None

    def update_masks(self, threshold: float) -> None:
        """Prune the weights whose sigmoid(score) is at most ``threshold``; others get their values back."""
        self.masks = {
            name: score.detach().to(self.targets[name].device).sigmoid() > threshold
            for name, score in self.scores.items()
        }
        for name, value in self.values.items():
            self.targets[name].data.add_(value)
        self.values = {name: self.targets[name].detach() * ~mask for name, mask in self.masks.items()}
        self.zero_pruned()

    def before_update(self, context: HookContext) -> None:
        if self.scores:
            # Before the gradients are masked: those of pruned weights decide whether they come back.
            self.learn(context, self.threshold(context.clock, context.step) / self.final_threshold * self.final_lambda)
        super().before_update(context)

    def learn(self, context: HookContext, penalty: float) -> None:
        """Make one step of Adam on the scores. ``penalty``: the lambda of this step."""
        trained = {name: weight for name, weight in self.targets.items() if weight.grad is not None}
        movement = {
            name: weight.grad.float()
            * (weight.detach() + self.values[name] if self.values else weight.detach()).float()
            for name, weight in trained.items()
            if weight.grad is not None
        }
        infinite = unscale(list(movement.values()), context.accelerator)
        for name, gradient in movement.items():
            score = self.scores[name] = self.scores[name].to(gradient.device)
            chance = score.detach().sigmoid()
            score.grad = gradient + penalty / (len(self.targets) * score.numel()) * chance * (1 - chance)
        self.step_scores(context.accelerator.scaler is not None, infinite)

    def step_scores(self, scaled: bool, infinite: Tensor | None) -> None:
        """Apply the gradients of the scores, unless ``infinite`` is 1. ``scaled``: whether there is a gradient scaler.

        Then Adam is the fused one, which alone leaves a step out without waiting for the device.
        """
        import torch

        if self.score_optimizer is None:
            fused = True if scaled else None
            self.score_optimizer = torch.optim.Adam(self.scores.values(), lr=self.score_learning_rate, fused=fused)
            if self.moments:
                groups = self.score_optimizer.state_dict()["param_groups"]
                self.score_optimizer.load_state_dict({"state": self.moments, "param_groups": groups})
        # As a gradient scaler tells an optimizer that can leave out a step.
        vars(self.score_optimizer)["found_inf"] = infinite
        self.score_optimizer.step()
        self.score_optimizer.zero_grad()

    def after_update(self, context: HookContext) -> None:
        super().after_update(context)
        if self.values:
            decay_remembered(self.values, self.targets, context.optimizer)

    def logs(self, context: HookContext) -> dict[str, float]:
        return {**super().logs(context), "threshold": self.threshold(context.clock, context.step)}

    def state_dict(self) -> dict[str, Any]:
        moments = self.score_optimizer.state_dict()["state"] if self.score_optimizer else self.moments
        scores = {name: score.detach() for name, score in self.scores.items()}
        return {**super().state_dict(), "scores": scores, "values": self.values, "moments": moments,
                "last_update": self.last_update}  # fmt: skip
