"""Pruning by turns: phases of dense training and phases of sparse training (Peste et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.functional.patterns import check_n_m, parse_mask_type
from sparse_xp.modifiers.display import Span, held_spans
from sparse_xp.modifiers.pruning import Pruning

if TYPE_CHECKING:
    from sparse_xp.modifiers.context import HookContext


def is_dense_phase(now: float, start: float, end: float, phase: float) -> bool:
    """Whether ``now`` lies in a dense phase; all in epochs, ``phase`` > 0 is the length of a phase.

    Phases alternate from ``start``, dense first. Before ``start`` all is dense; a dense phase that would not be over
    before ``end`` is a sparse one, so that the last phase is sparse. SparseML's rule (Peste et al. 2021, algorithm 1).
    """
    if now < start - 1e-9:
        return True
    number = math.floor((now - start) / phase + 1e-9)
    return number % 2 == 0 and end - phase > start + number * phase + 1e-9


@dataclass(kw_only=True)
class ACDCPruning(Pruning):
    """Alternating compressed/decompressed training (Peste et al. 2021, arXiv:2106.12379).

    Phases of ``update_frequency`` take turns from ``start`` to ``end``. In a dense phase nothing is masked, and what
    was pruned may grow again; at the beginning of a sparse phase the smallest weights are masked to
    ``compression_sparsity``. The last phase is sparse, and its masks hold to the end of the context, unless
    ``leave_enabled`` is false: then the first step after ``end`` drops them.

    ``momentum_buffer_reset``: after the first update of each dense phase SGD's momentum is set to zero. Adam, with
    which runs train, has none.
    ``global_sparsity``, ``mask_type``: as of MagnitudePruning.
    """

    compression_sparsity: float
    update_frequency: TimeSpec
    mask_type: Any = "unstructured"
    global_sparsity: bool = True
    leave_enabled: bool = True
    momentum_buffer_reset: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.compression_sparsity < 1:
            raise ValueError(
                f"ACDCPruning.compression_sparsity={self.compression_sparsity}: want a fraction strictly between 0 "
                f"and 1{', such as 0.8 for 80 %' if self.compression_sparsity >= 1 else ''} (recipe.sparsity= sets it)."
            )
        if not parse_time(self.update_frequency, "ACDCPruning.update_frequency")[0]:
            raise ValueError(
                f"ACDCPruning.update_frequency={self.update_frequency}: want the length of a phase, a time above 0."
            )
        self.pattern = parse_mask_type(self.mask_type)
        check_n_m(self.pattern, self.compression_sparsity)

    def attach(self, context: HookContext) -> None:
        super().attach(context)
        self.check_shapes(self.mask_type, self.pattern)

    def window(self, clock: Clock) -> tuple[float, float]:
        start, end = super().window(clock)
        last = clock.epoch(clock.total_steps - 1)
        if start > last:
            raise ValueError(
                f"ACDCPruning: start={self.start} is after the beginning of the last step "
                f"(epoch {last:g} of {clock.end:g}): nothing would be pruned."
            )
        return start, end

    def dense(self, clock: Clock, step: int) -> bool:
        """Whether step number ``step`` belongs to a dense phase, or lies before all phases."""
        start, end = self.window(clock)
        # A phase is one step at least, and the last dense one is over when the last step begins: no run ends dense.
        phase = max(clock.epoch(1), clock.to_epochs(self.update_frequency, "ACDCPruning.update_frequency"))
        return is_dense_phase(
            clock.epoch(step), start, min(end, clock.epoch(clock.total_steps) - 0.999 * clock.epoch(1)), phase
        )

    def dropped(self, clock: Clock, step: int) -> bool:
        """Whether the masks are gone for good in step number ``step``."""
        return not self.leave_enabled and clock.epoch(step) > self.window(clock)[1]

    def levels_by_step(self, clock: Clock) -> dict[int, float | None]:
        found: dict[int, float | None] = {}
        for step in range(clock.total_steps):
            pruned = not self.dropped(clock, step) and not self.dense(clock, step)
            found[step] = self.compression_sparsity if pruned else 0.0
        return found

    def spans(self, clock: Clock) -> list[Span]:
        return held_spans(self.window(clock), clock, held=self.leave_enabled, by_steps=False)

    def before_step(self, context: HookContext) -> None:
        from sparse_xp.functional.masks import global_masks, magnitude_scores, mask_from_scores

        if self.dropped(context.clock, context.step) or self.dense(context.clock, context.step):
            self.masks = {}
        elif not self.masks:
            scores = {name: magnitude_scores(weight) for name, weight in self.targets.items()}
            level = self.compression_sparsity
            if self.global_sparsity:
                self.masks = global_masks(scores, level, self.pattern)
            else:
                self.masks = {name: mask_from_scores(score, level, self.pattern) for name, score in scores.items()}
            self.zero_pruned()

    def after_update(self, context: HookContext) -> None:
        super().after_update(context)
        if self.momentum_buffer_reset and self.begins_dense_phase(context):
            # What momentum gathered while weights were held at zero says nothing about where they should go now.
            for state in context.optimizer.state.values():
                if state.get("momentum_buffer") is not None:
                    state["momentum_buffer"].zero_()

    def begins_dense_phase(self, context: HookContext) -> bool:
        """Whether the present step is the first one of a dense phase."""
        clock, step = context.clock, context.step
        begun = clock.epoch(step) >= self.window(clock)[0] - 1e-9
        before = step > 0 and clock.epoch(step - 1) >= self.window(clock)[0] - 1e-9
        return begun and self.dense(clock, step) and not (before and self.dense(clock, step - 1))

    def target_reached(self, context: HookContext) -> bool:
        # After the last update of a context, progress.step is its number of steps; any sparse phase gives the sparsity.
        return bool(self.masks) or self.dropped(context.clock, context.step)
