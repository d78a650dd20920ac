"""Pruning gradually to a target, by magnitude or by scores of a subclass, and keeping the zeros that are there.

The tensor functions are in ``sparse_xp.functional.masks``; they are imported inside the hooks, so that composing and
checking a configuration never waits for torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.console import say
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.functional.patterns import Pattern, check_n_m, parse_mask_type
from sparse_xp.functional.schedules import RAMPS, progress, scheduled_sparsity, update_due
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.display import HOLDS, Display, LoggedNumber, Span, held_spans

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from sparse_xp.modifiers.context import Cuts, HookContext

FROM_PARAM = "__FROM_PARAM__"


@dataclass(kw_only=True)
class Pruning(Modifier):
    """Holds masks over ``params`` and enforces them: on the gradient before the update, on the weight after it.

    ``params``: names, ``re:`` patterns or tokens, each of which must hit; ``exclude``: parameters among them to leave out.
    """

    params: list[str] = field(default_factory=lambda: ["__ENCODER__"])
    exclude: list[str] = field(default_factory=list)

    display: ClassVar[Display] = Display(bar_style="red", parameter_fields=("params", "exclude"))
    logged: ClassVar[tuple[LoggedNumber, ...]] = (LoggedNumber("sparsity", 50, "sparsity {:.1%}"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.params:
            raise ValueError(f"{type(self).__name__}.params is empty: name parameters, 're:<pattern>' or __ENCODER__.")
        self.targets: dict[str, Parameter] = {}
        self.masks: dict[str, Tensor] = {}

    @property
    def exclusive_resource(self) -> str:
        return "masks of " + " ".join(sorted(self.params)) + " but ".join(["", *sorted(self.exclude)])

    def levels_by_step(self, clock: Clock) -> dict[int, float | None]:
        """The scheduled sparsity of the masks from each step on that may change it; None: as the weights have it.

        Before the first of these steps, and where it is 0, nothing is masked.
        """
        raise NotImplementedError

    def attach(self, context: HookContext) -> None:
        from sparse_xp.functional.selection import select_parameters, tied_to_embeddings

        self.targets = select_parameters(context.model, self.params)
        for name in select_parameters(context.model, self.exclude):
            self.targets.pop(name, None)
        tied = tied_to_embeddings(context.model)
        for name in [name for name, weight in self.targets.items() if id(weight) in tied and name not in self.params]:
            del self.targets[name]
            say(f"{type(self).__name__}: {name} is an embedding too, and stays dense (its name in params prunes it)")
        if not self.targets:
            raise UserError(
                f"{type(self).__name__}: of {' '.join(self.params)} nothing is left but {' '.join(self.exclude)}."
            )
        self.masks = {}  # of this run: a configuration object may serve several

    def before_update(self, context: HookContext) -> None:
        for name, mask in self.masks.items():
            gradient = self.targets[name].grad
            if gradient is not None:
                gradient.mul_(mask)

    def after_update(self, context: HookContext) -> None:
        # Adam's momentum and weight decay may move a pruned weight, so the zero is put back after every update.
        self.zero_pruned()

    def resized(self, context: HookContext, cuts: Cuts) -> None:
        removed = {name for name, cut in cuts.items() if cut is None}
        self.targets = {name: weight for name, weight in self.targets.items() if name not in removed}
        self.masks = {
            name: cut(mask) if (cut := cuts.get(name)) else mask
            for name, mask in self.masks.items()
            if name not in removed
        }

    def check(self, context: HookContext) -> None:
        for name, mask in self.masks.items():
            revived = int((self.targets[name].detach()[~mask] != 0).sum())
            if revived:
                raise RuntimeError(f"{revived} pruned weights of {name} are no longer zero at step {context.step}.")

    def logs(self, context: HookContext) -> dict[str, float]:
        from sparse_xp.functional.sparsity import count_zeros

        total = sum(weight.numel() for weight in self.targets.values())
        return {"sparsity": sum(count_zeros(weight) for weight in self.targets.values()) / total}

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks}

    def check_shapes(self, mask_type: Any, pattern: Pattern) -> None:
        """Raise UserError if ``pattern`` does not divide a target: before hours are spent on the way to a mask."""
        from sparse_xp.functional.masks import global_masks, magnitude_scores

        try:
            global_masks({name: magnitude_scores(w.detach()) for name, w in self.targets.items()}, 0.0, pattern)
        except ValueError as error:
            raise UserError(f"mask_type={mask_type}: {error}.") from error

    def zero_pruned(self) -> None:
        """Put zeros where the masks are False."""
        for name, mask in self.masks.items():
            self.targets[name].data.mul_(mask)


@dataclass(kw_only=True)
class ConstantPruning(Pruning):
    """Keep the zeros of a sparse checkpoint (sparse transfer learning).

    ``min_sparsity`` is what the targets must have at the start, all together, for the name to be deserved: a
    dense checkpoint is an error, not a dense run that calls itself sparse. ``refresh_masks``: a weight that becomes exactly
    zero on the way stays zero too (the masks are made anew before every step), so that zeros never get fewer.
    """

    min_sparsity: float = 0.05
    refresh_masks: bool = False

    display: ClassVar[Display] = replace(Pruning.display, unknown_sparsity="kept")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.min_sparsity <= 1:
            raise ValueError(f"ConstantPruning.min_sparsity={self.min_sparsity}: want a fraction in [0, 1].")

    def attach(self, context: HookContext) -> None:
        from sparse_xp.functional.sparsity import count_zeros

        super().attach(context)
        found = sum(count_zeros(w) for w in self.targets.values()) / sum(w.numel() for w in self.targets.values())
        # Rounding per tensor: a checkpoint pruned to 80 % has 79.99 % as often as 80.01 %.
        if found < self.min_sparsity - 0.005:
            raise UserError(
                f"locked sparsity keeps the zeros of a sparse checkpoint, but {context.source} has {found:.1%} zeros "
                f"in {' '.join(self.params)}, want at least {self.min_sparsity:.0%}. Start from a sparse checkpoint "
                "(model.checkpoint=DIR or a hub id), or prune this one (recipe=gradual80)."
            )

    def levels_by_step(self, clock: Clock) -> dict[int, float | None]:
        start, _ = self.window(clock)
        return {next(step for step in range(clock.total_steps + 1) if clock.epoch(step) >= start): None}

    def spans(self, clock: Clock) -> list[Span]:
        return [Span(self.window(clock)[0], clock.end, HOLDS)]

    def before_step(self, context: HookContext) -> None:
        if (self.refresh_masks or not self.masks) and context.clock.epoch(context.step) >= self.window(context.clock)[
            0
        ]:
            self.masks = {name: weight.detach() != 0 for name, weight in self.targets.items()}


def updates_window(kind: str, written: TimeSpec, start: float, end: float, clock: Clock) -> tuple[float, float]:
    """The window of a modifier that acts in single steps: the last update must happen inside the run.

    One that ends with the run ends at its last step. ``kind`` and ``written``, the start, are for the message. Raises
    ValueError for a window behind the beginning of that step.
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
    """From ``start`` to ``end`` ever more of the targets is masked; a subclass says by which ``scores``.

    Every ``update_frequency`` the lowest scores are masked, so that the sparsity of the targets follows
    ``inter_func`` from ``init_sparsity`` to ``final_sparsity``; the last update lands on ``final_sparsity`` exactly
    (Zhu & Gupta 2017, eq. 1).

    ``init_sparsity``: a fraction, or ``__FROM_PARAM__``: what is zero already when ``start`` comes, of each tensor, or
    of all of them with ``global_sparsity``. A tensor with more zeros than ``final_sparsity`` is at it from the start.
    ``mask_type``: ``unstructured``, ``block4``, ``[1, 4]``, or ``N:M`` (keep N of each M inputs).
    ``global_sparsity``: one threshold over all targets instead of one per tensor.
    ``leave_enabled``: the masks hold to the end of the run; if not, the first step after ``end`` drops them, and
    what was pruned may grow again.
    ``refresh_until``: from ``end`` to then the masks of ``final_sparsity`` are still made anew every
    ``update_frequency``; None: they are not.
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
                f"{kind}.final_sparsity={self.final_sparsity}: want a fraction strictly between 0 and 1"
                f"{', such as 0.8 for 80 %' if self.final_sparsity >= 1 else ''} (recipe.sparsity= sets it)."
            )
        init = self.init_sparsity
        number = isinstance(init, int | float) and not isinstance(init, bool)
        if init != FROM_PARAM and not (number and 0 <= init <= self.final_sparsity):
            raise ValueError(
                f"{kind}.init_sparsity={init}: want a fraction from 0 to final_sparsity={self.final_sparsity}, "
                f"or {FROM_PARAM} for the zeros that are there."
            )
        if self.inter_func not in RAMPS:
            raise ValueError(
                f"{kind}.inter_func={self.inter_func!r}: want one of {', '.join(RAMPS)}."
                f"{did_you_mean(self.inter_func, RAMPS)}"
            )
        parse_time(self.update_frequency, f"{kind}.update_frequency")
        if self.refresh_until is not None:
            parse_time(self.refresh_until, f"{kind}.refresh_until")
            if not self.leave_enabled:
                raise ValueError(f"{kind}.refresh_until: with leave_enabled=false there are no masks to make anew.")
        self.pattern = parse_mask_type(self.mask_type)
        check_n_m(self.pattern, self.final_sparsity)
        self.last_update = -1.0
        self.found: dict[str, float] = {}  # with __FROM_PARAM__: the level that each target starts from

    def attach(self, context: HookContext) -> None:
        super().attach(context)
        self.last_update = -1.0
        self.found = {}
        self.check_shapes(self.mask_type, self.pattern)

    def window(self, clock: Clock) -> tuple[float, float]:
        if self.refresh_until is not None and clock.to_epochs_unrounded(self.refresh_until) < clock.to_epochs_unrounded(
            self.end
        ):
            raise ValueError(f"{type(self).__name__}: refresh_until={self.refresh_until} is before end={self.end}.")
        return updates_window(type(self).__name__, self.start, *super().window(clock), clock)

    def before_step(self, context: HookContext) -> None:
        start, end = self.window(context.clock)
        now = context.clock.epoch(context.step)
        if self.dropped(now, end, self.last_update):
            self.masks = {}
        if self.due(context.clock, now, self.last_update):
            self.prune(context, self.levels(progress(now, start, end)))
            self.last_update = now
            self.zero_pruned()

    def due(self, clock: Clock, now: float, last: float) -> bool:
        """Whether the step at ``now`` makes new masks, if the last that did was at ``last``."""
        start, end = self.window(clock)
        every = clock.to_epochs(self.update_frequency)
        if update_due(now, last, start, end, every):
            return True
        until = -1.0 if self.refresh_until is None else clock.to_epochs(self.refresh_until)
        return end <= last and now <= until + 1e-9 and now >= last + every - 1e-9

    def dropped(self, now: float, end: float, last_update: float) -> bool:
        """Whether the masks are gone for good."""
        return not self.leave_enabled and last_update >= end and now > last_update

    def levels_by_step(self, clock: Clock) -> dict[int, float | None]:
        found: dict[int, float | None] = {}
        (start, end), last = self.window(clock), -1.0
        for step in range(clock.total_steps):
            now = clock.epoch(step)
            if self.due(clock, now, last):
                found[step], last = self.level(progress(now, start, end)), now
            elif self.dropped(now, end, last):
                found[step] = 0.0
                break
        return found

    def spans(self, clock: Clock) -> list[Span]:
        return held_spans(self.window(clock), clock, held=self.leave_enabled)

    def level(self, done: float) -> float | None:
        """The scheduled sparsity when ``done`` of the window is over; None if it depends on the weights."""
        if self.init_sparsity == FROM_PARAM:
            return self.final_sparsity if done >= 1 else None
        return scheduled_sparsity(self.inter_func, self.init_sparsity, self.final_sparsity, done)

    def levels(self, done: float) -> dict[str, float]:
        """The scheduled sparsity of each target; all the same with ``global_sparsity``. ``done``: of the window."""
        from sparse_xp.functional.sparsity import count_zeros

        if self.init_sparsity == FROM_PARAM and not self.found:
            counts = {name: (count_zeros(weight), weight.numel()) for name, weight in self.targets.items()}
            if self.global_sparsity:
                counts = dict.fromkeys(counts, (sum(z for z, _ in counts.values()), sum(n for _, n in counts.values())))
            self.found = {name: min(z / n, self.final_sparsity) for name, (z, n) in counts.items()}
        return {
            name: scheduled_sparsity(
                self.inter_func, self.found.get(name, self.init_sparsity), self.final_sparsity, done
            )
            for name in self.targets
        }

    def prune(self, context: HookContext, levels: dict[str, float]) -> None:
        """Make the masks for these levels."""
        self.masks = self.select(self.scores(context), levels)

    def scores(self, context: HookContext) -> dict[str, Tensor]:
        """What each weight is worth, float32, shaped like its target; the lowest go."""
        raise NotImplementedError

    def select(self, scores: dict[str, Tensor], levels: dict[str, float]) -> dict[str, Tensor]:
        """The masks without the lowest scores."""
        from sparse_xp.functional.masks import global_masks, mask_from_scores

        if self.global_sparsity:
            return global_masks(scores, max(levels.values()), self.pattern)
        return {name: mask_from_scores(score, levels[name], self.pattern) for name, score in scores.items()}

    def target_reached(self, context: HookContext) -> bool:
        return self.last_update >= self.window(context.clock)[1]

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks, "last_update": self.last_update, "found": self.found}


@dataclass(kw_only=True)
class MagnitudePruning(GradualPruning):
    """Gradual magnitude pruning (Zhu & Gupta 2017; Gale et al. 2019): the smallest weights go.

    ``regrow``: a pruned weight keeps the value it had, less the weight decay since, and comes back with it when newer
    masks prefer it to another. If not, what is pruned is zero, and zeros are the first to go again.
    """

    regrow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.values: dict[str, Tensor] = {}  # of the pruned weights, 0 elsewhere

    def attach(self, context: HookContext) -> None:
        super().attach(context)
        self.values = {}

    def after_update(self, context: HookContext) -> None:
        super().after_update(context)
        if self.values:
            group = next(group for group in context.optimizer.param_groups if group["decays"])
            if group["weight_decay"]:
                for value in self.values.values():
                    value.mul_(1 - group["lr"] * group["weight_decay"])

    def prune(self, context: HookContext, levels: dict[str, float]) -> None:
        for name, value in self.values.items():
            self.targets[name].data.add_(value)
        super().prune(context, levels)
        if self.regrow:
            self.values = {name: self.targets[name].detach() * ~mask for name, mask in self.masks.items()}

    def scores(self, context: HookContext) -> dict[str, Tensor]:
        from sparse_xp.functional.masks import magnitude_scores

        return {name: magnitude_scores(weight) for name, weight in self.targets.items()}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "values": self.values}
