"""Pruning along a sparsity schedule.

``GradualPruning`` decides when masks change and how sparse they are. Its subclasses score the weights: ``magnitude``,
``movement`` and ``obs``. The curves are in ``sparse_xp.functional.schedules``, the masks in
``sparse_xp.functional.masks``. torch is imported late, inside the hooks: composing a configuration must not load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.errors import did_you_mean
from sparse_xp.functional.patterns import check_n_m, parse_mask_type, with_n
from sparse_xp.functional.schedules import RAMPS, ramp_progress, scheduled_sparsity, update_due
from sparse_xp.modifiers.display import Span, held_spans
from sparse_xp.modifiers.pruning import Pruning

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_xp.modifiers.context import HookContext

#: the value of ``init_sparsity`` that starts from the zeros of the checkpoint; SparseML's spelling
FROM_PARAM = "__FROM_PARAM__"


def updates_window(kind: str, written: TimeSpec, start: float, end: float, clock: Clock) -> tuple[float, float]:
    """Return the times of the first and of the last update of a modifier that acts in single steps.

    A ramp that ends with the run has its last update in the last step, so that it happens inside the run. ``kind``
    and ``written``, the start as configured, are for the message. Raises ValueError for a start after that step.
    """
    last = clock.epoch(clock.total_steps - 1)
    if start > last:
        raise ValueError(
            f"{kind}: start={written} is after the beginning of the last step "
            f"(epoch {last:g} of {clock.end:g}): nothing would be pruned."
        )
    return start, max(start, min(end, last))


@dataclass(kw_only=True)
class GradualPruning(Pruning):
    """Base of modifiers that increase the sparsity of their targets from ``start`` to ``end``.

    At every update the weights with the lowest ``scores`` are masked. The sparsity follows ``inter_func`` from
    ``init_sparsity`` to ``final_sparsity`` (Zhu & Gupta 2017, arXiv:1710.01878, eq. 1), and the last update sets
    exactly ``final_sparsity``. Times are epochs, ``'N steps'`` or ``'N%'`` of the run.

    Attributes:
        start: The time of the first update.
        end: The time of the last update. Where the run ends then, its last step makes it.
        final_sparsity: The fraction of zeros at ``end``, strictly between 0 and 1.
        init_sparsity: The fraction of zeros at ``start``. ``__FROM_PARAM__``: each target's fraction of zeros in the
            checkpoint (with ``global_sparsity``: that of all targets). A target with more zeros than ``final_sparsity``
            is held at ``final_sparsity`` from the start.
        inter_func: The curve: ``cubic``, ``linear`` or ``inverse_cubic``.
        update_frequency: The time between two updates.
        mask_type: ``unstructured``, ``block4`` (groups of 4 inputs), ``[1, 4]``, or ``N:M`` (keep N of each M inputs;
            ``N:4``: of 4 inputs as many as the sparsity says).
        global_sparsity: Compare the scores of all targets, instead of pruning each target to the same sparsity.
        leave_enabled: Hold the masks until the end of the run. If false, the first step after ``end`` drops them, and
            pruned weights train again.
        refresh_until: After ``end``, recompute the masks at ``final_sparsity`` every ``update_frequency`` until this
            time. None (the default): the masks of ``end`` are final.
    """

    final_sparsity: float
    init_sparsity: Any = 0.0
    inter_func: str = "cubic"
    update_frequency: TimeSpec = 0.05
    mask_type: Any = "unstructured"
    global_sparsity: bool = False
    leave_enabled: bool = True
    refresh_until: TimeSpec = None

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = type(self).__name__
        if not 0 < self.final_sparsity < 1:
            raise ValueError(
                f"{kind}.final_sparsity={self.final_sparsity}: expected a fraction strictly between 0 and 1"
                f"{', such as 0.8 for 80 %' if self.final_sparsity >= 1 else ''} (recipe.sparsity= sets it)."
            )
        init = self.init_sparsity
        number = isinstance(init, int | float) and not isinstance(init, bool)
        if init != FROM_PARAM and not (number and 0 <= init <= self.final_sparsity):
            raise ValueError(
                f"{kind}.init_sparsity={init}: expected a fraction from 0 to final_sparsity={self.final_sparsity}, "
                f"or {FROM_PARAM} for the zeros of the checkpoint."
            )
        if self.inter_func not in RAMPS:
            raise ValueError(
                f"{kind}.inter_func={self.inter_func!r}: expected one of {', '.join(RAMPS)}."
                f"{did_you_mean(self.inter_func, RAMPS)}"
            )
        parse_time(self.update_frequency, f"{kind}.update_frequency")
        if self.refresh_until is not None:
            parse_time(self.refresh_until, f"{kind}.refresh_until")
            if not self.leave_enabled:
                raise ValueError(f"{kind}.refresh_until: with leave_enabled=false there are no masks to recompute.")
        self.mask_type = with_n(self.mask_type, self.final_sparsity)
        self.pattern = parse_mask_type(self.mask_type)
        check_n_m(self.pattern, self.final_sparsity)
        self.last_update = -1.0  # in epochs; below 0: none yet
        self.initial_sparsity: dict[str, float] = {}  # measured per target, with __FROM_PARAM__

    @property
    def zeros_at_end(self) -> float | None:
        return self.final_sparsity if self.leave_enabled else None

    def attach(self, context: HookContext) -> None:
        super().attach(context)
        self.last_update = -1.0
        # Measured now and not at ``start``, as in SparseML: until then the zeros train.
        self.initial_sparsity = self.measure_initial_sparsity() if self.init_sparsity == FROM_PARAM else {}
        self.check_shapes(context.model, self.mask_type, self.pattern)

    def window(self, clock: Clock) -> tuple[float, float]:
        if self.refresh_until is not None and clock.to_epochs_unrounded(self.refresh_until) < clock.to_epochs_unrounded(
            self.end
        ):
            raise ValueError(f"{type(self).__name__}: refresh_until={self.refresh_until} is before end={self.end}.")
        return updates_window(type(self).__name__, self.start, *super().window(clock), clock)

    def before_step(self, context: HookContext) -> None:
        _, end = self.window(context.clock)
        now = context.clock.epoch(context.step)
        if self.masks_dropped(now, end, self.last_update):
            self.masks = {}
        if self.is_update_due(context.clock, now, self.last_update):
            self.prune(context, self.levels(self.progress(context.clock, now)))
            self.last_update = now
            self.zero_pruned()

    def progress(self, clock: Clock, now: float) -> float:
        """Return the part of the ramp that is over ``now``, in epochs; 1 at the last update.

        A ramp that ends with the run is not compressed into its steps: they have the same sparsity as in a longer run.
        Only the last step has ``final_sparsity``.
        """
        return ramp_progress(now, self.window(clock), clock.to_epochs(self.end))

    def is_update_due(self, clock: Clock, now: float, last: float) -> bool:
        """Return whether the step at ``now`` updates the masks, given the ``last`` update; both in epochs."""
        start, end = self.window(clock)
        every = clock.to_epochs(self.update_frequency)
        if update_due(now, last, start, end, every):
            return True
        # After the ramp: ``refresh_until`` continues the updates at ``final_sparsity``.
        until = -1.0 if self.refresh_until is None else clock.to_epochs(self.refresh_until)
        return end <= last and now <= until + 1e-9 and now >= last + every - 1e-9

    def masks_dropped(self, now: float, end: float, last_update: float) -> bool:
        """Return whether the masks are removed for the rest of the run (``leave_enabled=false``)."""
        return not self.leave_enabled and last_update >= end and now > last_update

    def levels_by_step(self, clock: Clock) -> dict[int, float | None]:
        # The viewer of recipes calls this. It replays ``before_step`` without a model.
        levels: dict[int, float | None] = {}
        (_, end), last_update = self.window(clock), -1.0
        for step in range(clock.total_steps):
            now = clock.epoch(step)
            if self.is_update_due(clock, now, last_update):
                levels[step], last_update = self.level(self.progress(clock, now)), now
            elif self.masks_dropped(now, end, last_update):
                levels[step] = 0.0
                break
        return levels

    def spans(self, clock: Clock) -> list[Span]:
        return held_spans(self.window(clock), clock, held=self.leave_enabled)

    def level(self, fraction: float) -> float | None:
        """Return the scheduled sparsity at ``fraction`` of the window; None if it depends on the weights."""
        if self.init_sparsity == FROM_PARAM:
            return self.final_sparsity if fraction >= 1 else None
        return scheduled_sparsity(self.inter_func, self.init_sparsity, self.final_sparsity, fraction)

    def levels(self, fraction: float) -> dict[str, float]:
        """Return the scheduled sparsity of each target at ``fraction`` of the window.

        With ``global_sparsity`` all have the same value.
        """
        if self.init_sparsity == FROM_PARAM and not self.initial_sparsity:
            self.initial_sparsity = self.measure_initial_sparsity()
        return {
            name: scheduled_sparsity(
                self.inter_func, self.initial_sparsity.get(name, self.init_sparsity), self.final_sparsity, fraction
            )
            for name in self.targets
        }

    def measure_initial_sparsity(self) -> dict[str, float]:
        """Return the fraction of zeros of each target, at most ``final_sparsity``."""
        from sparse_xp.functional.sparsity import count_zeros

        counts = {name: (count_zeros(weight), weight.numel()) for name, weight in self.targets.items()}
        if self.global_sparsity:
            counts = dict.fromkeys(counts, (sum(z for z, _ in counts.values()), sum(n for _, n in counts.values())))
        return {name: min(zeros / total, self.final_sparsity) for name, (zeros, total) in counts.items()}

    def prune(self, context: HookContext, levels: dict[str, float]) -> None:
        """Compute the masks for the sparsity ``levels``, by target."""
        self.masks = self.select(self.scores(context), levels)

    def scores(self, context: HookContext) -> dict[str, Tensor]:
        """Return the importance of each weight, float32, shaped like its target. The lowest are pruned first."""
        raise NotImplementedError

    def select(self, scores: dict[str, Tensor], levels: dict[str, float]) -> dict[str, Tensor]:
        """Return masks that hide the lowest scores, per target or over all of them (``global_sparsity``)."""
        from sparse_xp.functional.masks import global_masks, mask_from_scores

        if self.global_sparsity:
            return global_masks(scores, max(levels.values()), self.pattern)
        return {name: mask_from_scores(score, levels[name], self.pattern) for name, score in scores.items()}

    def target_reached(self, context: HookContext) -> bool:
        return self.last_update >= self.window(context.clock)[1]

    def state_dict(self) -> dict[str, Any]:
        # Checkpoints store ``initial_sparsity`` as "found": earlier runs must still resume.
        return {"masks": self.masks, "last_update": self.last_update, "found": self.initial_sparsity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({{"found": "initial_sparsity"}.get(name, name): value for name, value in state.items()})
