"""Pruning by magnitude: gradually to a target, or by keeping the zeros that are there.

The tensor functions are in ``sparse_xp.sparsity``; they are imported inside the hooks, so that composing and
checking a configuration never waits for torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparse_xp.clock import Clock, When, parse_when
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.modifiers.base import Modifier
from sparse_xp.patterns import check_n_m, parse_mask_type

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from sparse_xp.loop import Run

INTER_FUNCS = ("cubic", "linear", "inverse_cubic")


@dataclass(kw_only=True)
class Pruning(Modifier):
    """Holds masks over ``params`` and enforces them: on the gradient before the update, on the weight after it."""

    params: list[str] = field(default_factory=lambda: ["__ENCODER__"])

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.params:
            raise ValueError(f"{type(self).__name__}.params is empty: name parameters, 're:<pattern>' or __ENCODER__.")
        self.targets: dict[str, Parameter] = {}
        self.masks: dict[str, Tensor] = {}

    @property
    def occupies(self) -> str:
        return "masks of " + " ".join(sorted(self.params))

    def attach(self, run: Run) -> None:
        from sparse_xp.sparsity import select_parameters

        self.targets = select_parameters(run.model, self.params)
        self.masks = {}  # of this run: a configuration object may serve several

    def before_update(self, run: Run) -> None:
        for name, mask in self.masks.items():
            gradient = self.targets[name].grad
            if gradient is not None:
                gradient.mul_(mask)

    def after_update(self, run: Run) -> None:
        # Adam's momentum and weight decay may move a pruned weight, so the zero is put back after every update.
        for name, mask in self.masks.items():
            self.targets[name].data.mul_(mask)

    def check(self, run: Run) -> None:
        for name, mask in self.masks.items():
            revived = int((self.targets[name].detach()[~mask] != 0).sum())
            if revived:
                raise RuntimeError(
                    f"{revived} pruned weights of {name} are no longer zero at step {run.progress.step}."
                )

    def logs(self, run: Run) -> dict[str, float]:
        from sparse_xp.sparsity import zeros

        total = sum(weight.numel() for weight in self.targets.values())
        return {"sparsity": sum(zeros(weight) for weight in self.targets.values()) / total}

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks}


@dataclass(kw_only=True)
class ConstantPruning(Pruning):
    """Keep the zeros of a sparse checkpoint (sparse transfer learning).

    ``min_sparsity`` is what the targets must have at the start, all together, for the name to be deserved: a
    dense checkpoint is an error, not a dense run that calls itself sparse.
    """

    min_sparsity: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.min_sparsity <= 1:
            raise ValueError(f"ConstantPruning.min_sparsity={self.min_sparsity}: want a fraction in [0, 1].")

    def attach(self, run: Run) -> None:
        from sparse_xp.sparsity import zeros

        super().attach(run)
        found = sum(zeros(w) for w in self.targets.values()) / sum(w.numel() for w in self.targets.values())
        # Rounding per tensor: a checkpoint pruned to 80 % has 79.99 % as often as 80.01 %.
        if found < self.min_sparsity - 0.005:
            raise UserError(
                f"locked sparsity keeps the zeros of a sparse checkpoint, but {run.source} has {found:.1%} zeros "
                f"in {' '.join(self.params)}, want at least {self.min_sparsity:.0%}. Start from a sparse checkpoint "
                "(model.checkpoint=DIR or a hub id), or prune this one (recipe=gradual80)."
            )

    def before_step(self, run: Run) -> None:
        if not self.masks and run.clock.epoch(run.progress.step) >= self.window(run.clock)[0]:
            self.masks = {name: weight.detach() != 0 for name, weight in self.targets.items()}


@dataclass(kw_only=True)
class MagnitudePruning(Pruning):
    """Gradual magnitude pruning (Zhu & Gupta 2017, eq. 1; Gale et al. 2019).

    Every ``update_frequency`` from ``start`` to ``end`` the smallest weights are masked, so that the sparsity of
    the targets follows ``inter_func`` from ``init_sparsity`` to ``final_sparsity``; the last update lands on
    ``final_sparsity`` exactly. The masks hold to the end of the run.

    ``mask_type``: ``unstructured``, ``block4``, ``[1, 4]``, or ``N:M`` (keep N of each M inputs).
    ``global_sparsity``: one threshold over all targets instead of one per tensor.
    """

    final_sparsity: float
    init_sparsity: float = 0.0
    inter_func: str = "cubic"
    update_frequency: When = 0.05
    mask_type: Any = "unstructured"
    global_sparsity: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.final_sparsity < 1:
            raise ValueError(
                f"MagnitudePruning.final_sparsity={self.final_sparsity}: want a fraction strictly between 0 and 1"
                f"{', such as 0.8 for 80 %' if self.final_sparsity >= 1 else ''} (recipe.sparsity= sets it)."
            )
        if not 0 <= self.init_sparsity <= self.final_sparsity:
            raise ValueError(
                f"MagnitudePruning.init_sparsity={self.init_sparsity}: want a fraction from 0 to "
                f"final_sparsity={self.final_sparsity}."
            )
        if self.inter_func not in INTER_FUNCS:
            raise ValueError(
                f"MagnitudePruning.inter_func={self.inter_func!r}: want one of {', '.join(INTER_FUNCS)}."
                f"{did_you_mean(self.inter_func, INTER_FUNCS)}"
            )
        parse_when(self.update_frequency, "MagnitudePruning.update_frequency")
        self.pattern = parse_mask_type(self.mask_type)
        check_n_m(self.pattern, self.final_sparsity)
        self.last_update = -1.0

    def attach(self, run: Run) -> None:
        from sparse_xp.sparsity import global_masks, magnitude_scores

        super().attach(run)
        self.last_update = -1.0
        try:  # the shapes, before hours of training are spent on the way to the first mask
            global_masks({name: magnitude_scores(w.detach()) for name, w in self.targets.items()}, 0.0, self.pattern)
        except ValueError as error:
            raise UserError(f"mask_type={self.mask_type}: {error}.") from error

    def window(self, clock: Clock) -> tuple[float, float]:
        start, end = super().window(clock)
        # The last update must happen inside the run: one that ends with it ends at its last step.
        last = clock.epoch(clock.total_steps - 1)
        if start > last:
            raise ValueError(
                f"MagnitudePruning: start={self.start} lies behind the beginning of the last step "
                f"(epoch {last:g} of {clock.end:g}): nothing would be pruned."
            )
        return start, max(start, min(end, last))

    def before_step(self, run: Run) -> None:
        from sparse_xp.sparsity import global_masks, magnitude_scores, mask_from_scores, scheduled_sparsity

        start, end = self.window(run.clock)
        now = run.clock.epoch(run.progress.step)
        if now < start or self.last_update >= end:
            return
        every = run.clock.at(self.update_frequency, "update_frequency")
        if self.last_update >= 0 and now < end and now < self.last_update + every - 1e-9:
            return
        done = (now - start) / (end - start) if end > start else 1.0
        level = scheduled_sparsity(self.inter_func, self.init_sparsity, self.final_sparsity, done)
        scores = {name: magnitude_scores(weight.detach()) for name, weight in self.targets.items()}
        if self.global_sparsity:
            self.masks = global_masks(scores, level, self.pattern)
        else:
            self.masks = {name: mask_from_scores(score, level, self.pattern) for name, score in scores.items()}
        self.last_update = now
        self.after_update(run)

    def reached(self, run: Run) -> bool:
        return self.last_update >= self.window(run.clock)[1]

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks, "last_update": self.last_update}
