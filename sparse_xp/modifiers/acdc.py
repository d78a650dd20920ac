"""AC/DC pruning: alternating phases of dense and of sparse training (Peste et al. 2021).

The phases are functions of the clock, so a resumed run needs no state but its masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.functional.patterns import check_n_m, parse_mask_type, with_n
from sparse_xp.modifiers.display import Span, held_spans
from sparse_xp.modifiers.pruning import Pruning

if TYPE_CHECKING:
    from sparse_xp.modifiers.context import HookContext


def is_dense_phase(now: float, start: float, end: float, phase: float) -> bool:
    """Return whether ``now`` lies in a dense phase. All arguments are epochs; ``phase`` > 0 is the length of a phase.

    Phases alternate from ``start``, the first one dense. Training before ``start`` is dense as well. A dense phase that
    would last until ``end`` or longer is made sparse, so that the last phase is always sparse. This is SparseML's rule
    (Peste et al. 2021, algorithm 1).
    """
    if now < start - 1e-9:
        return True
    number = math.floor((now - start) / phase + 1e-9)
    return number % 2 == 0 and end - phase > start + number * phase + 1e-9


@dataclass(kw_only=True)
class ACDCPruning(Pruning):
    """Alternating compressed/decompressed training (AC/DC, Peste et al. 2021, arXiv:2106.12379).

    From ``start`` to ``end`` dense and sparse phases alternate. In a dense phase nothing is masked, and pruned weights
    train again. At the beginning of a sparse phase the weights with the smallest absolute values are masked. The last
    phase is sparse. Times are epochs, ``'N steps'`` or ``'N%'`` of the run.

    Attributes:
        compression_sparsity: The fraction of zeros in a sparse phase, strictly between 0 and 1.
        update_frequency: The length of a phase, at least one step.
        mask_type: ``unstructured``, ``block4`` (groups of 4 inputs), ``[1, 4]``, or ``N:M`` (keep N of each M inputs;
            ``N:4``: of 4 inputs as many as the sparsity says).
        global_sparsity: Compare the weights of all targets (the default), instead of pruning each target to the same
            sparsity.
        leave_enabled: Hold the last masks until the end of the run. If false, the first step after ``end`` drops them.
        momentum_buffer_reset: Set SGD's momentum to zero after the first update of each dense phase. It has no effect
            on AdamW, with which ``sparse_xp`` trains.
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
                f"ACDCPruning.compression_sparsity={self.compression_sparsity}: expected a fraction strictly between 0 "
                f"and 1{', such as 0.8 for 80 %' if self.compression_sparsity >= 1 else ''} (recipe.sparsity= sets it)."
            )
        if not parse_time(self.update_frequency, "ACDCPruning.update_frequency")[0]:
            raise ValueError(
                f"ACDCPruning.update_frequency={self.update_frequency}: expected the length of a phase, a time above 0."
            )
        self.mask_type = with_n(self.mask_type, self.compression_sparsity)
        self.pattern = parse_mask_type(self.mask_type)
        check_n_m(self.pattern, self.compression_sparsity)

    @property
    def zeros_at_end(self) -> float | None:
        return self.compression_sparsity

    def attach(self, context: HookContext) -> None:
        super().attach(context)
        self.check_shapes(context.model, self.mask_type, self.pattern)

    def window(self, clock: Clock) -> tuple[float, float]:
        start, end = super().window(clock)
        last = clock.epoch(clock.total_steps - 1)
        if start > last:
            raise ValueError(
                f"ACDCPruning: start={self.start} is after the beginning of the last step "
                f"(epoch {last:g} of {clock.end:g}): nothing would be pruned."
            )
        return start, end

    def in_dense_phase(self, clock: Clock, step: int) -> bool:
        """Return whether step number ``step`` is in a dense phase, or before all phases."""
        start, end = self.window(clock)
        # A phase lasts at least one step. The last dense phase ends before the last step begins, so that no run ends
        # dense: hence 0.999 of a step before the end of the run.
        phase = max(clock.epoch(1), clock.to_epochs(self.update_frequency, "ACDCPruning.update_frequency"))
        return is_dense_phase(
            clock.epoch(step), start, min(end, clock.epoch(clock.total_steps) - 0.999 * clock.epoch(1)), phase
        )

    def masks_dropped(self, clock: Clock, step: int) -> bool:
        """Return whether the masks are removed for the rest of the run at ``step`` (``leave_enabled=false``)."""
        return not self.leave_enabled and clock.epoch(step) > self.window(clock)[1]

    def levels_by_step(self, clock: Clock) -> dict[int, float | None]:
        levels: dict[int, float | None] = {}
        for step in range(clock.total_steps):
            sparse = not self.masks_dropped(clock, step) and not self.in_dense_phase(clock, step)
            levels[step] = self.compression_sparsity if sparse else 0.0
        return levels

    def spans(self, clock: Clock) -> list[Span]:
        return held_spans(self.window(clock), clock, held=self.leave_enabled, by_steps=False)

    def before_step(self, context: HookContext) -> None:
        from sparse_xp.functional.masks import global_masks, magnitude_scores, mask_from_scores

        clock, step = context.clock, context.step
        if self.masks_dropped(clock, step) or self.in_dense_phase(clock, step):
            self.masks = {}
        elif not self.masks:  # a sparse phase begins; its masks are computed once
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
            # During the sparse phase masked weights had no gradient: their momentum is stale.
            for state in context.optimizer.state.values():
                if state.get("momentum_buffer") is not None:
                    state["momentum_buffer"].zero_()

    def begins_dense_phase(self, context: HookContext) -> bool:
        """Return whether the current step is the first one of a dense phase."""
        clock, step = context.clock, context.step
        start = self.window(clock)[0] - 1e-9
        in_window = clock.epoch(step) >= start
        previous_in_window = step > 0 and clock.epoch(step - 1) >= start
        previous_dense = previous_in_window and self.in_dense_phase(clock, step - 1)
        return in_window and self.in_dense_phase(clock, step) and not previous_dense

    def target_reached(self, context: HookContext) -> bool:
        # Every sparse phase has the full sparsity. After the last update ``context.step`` is the number of steps, which
        # is in no phase, so the masks themselves are asked.
        return bool(self.masks) or self.masks_dropped(context.clock, context.step)
