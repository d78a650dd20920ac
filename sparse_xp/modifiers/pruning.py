"""Masks over weights: what every unstructured pruning modifier shares, and ``ConstantPruning``.

``Pruning`` enforces masks; its subclasses decide when masks change and which weights they hide. ``gradual_pruning``
follows a sparsity schedule, for which ``magnitude``, ``movement`` and ``obs`` score the weights. ``acdc`` alternates
dense and sparse phases. The tensor functions are in ``sparse_xp.functional.masks``.

torch is imported late, inside the hooks: composing a configuration must not load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock
from sparse_xp.console import say
from sparse_xp.errors import UserError
from sparse_xp.functional.patterns import Pattern
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.display import HOLDS, Display, LoggedNumber, Span

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Parameter
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from sparse_xp.modifiers.context import Cuts, HookContext

#: slack of ``min_sparsity``: rounding per tensor leaves a checkpoint pruned to 80 % at 79.99 % as often as at 80.01 %
SPARSITY_TOLERANCE = 0.005


@dataclass(kw_only=True)
class Pruning(Modifier):
    """Base of modifiers that mask single weights.

    ``targets``: the parameters by name. ``masks``: bool tensors shaped like their targets, False where a weight is
    pruned. A masked weight is kept at zero by masking its gradient before the update and the weight itself after it.

    Attributes:
        params: The parameters to prune: exact names, ``re:<pattern>``, or a token such as ``__ENCODER__``. An entry
            that matches nothing is an error.
        exclude: Parameters to leave dense although ``params`` matches them, written in the same way.
    """

    params: list[str] = field(default_factory=lambda: ["__ENCODER__"])
    exclude: list[str] = field(default_factory=list)

    display: ClassVar[Display] = Display(bar_style="red", parameter_fields=("params", "exclude"))
    logged: ClassVar[tuple[LoggedNumber, ...]] = (LoggedNumber("sparsity", 50, "sparsity {:.1%}"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("params", "exclude"):
            if isinstance(value := getattr(self, name), str):  # in Python a single pattern may be a text
                setattr(self, name, [value])
        if not self.params:
            raise ValueError(f"{type(self).__name__}.params is empty: name parameters, 're:<pattern>' or __ENCODER__.")
        self.targets: dict[str, Parameter] = {}
        self.masks: dict[str, Tensor] = {}
        self.factors: dict[str, tuple[Tensor, Tensor]] = {}  # masks and what ``factor`` has made of them

    @property
    def exclusive_resource(self) -> str:
        return "masks of " + " ".join(sorted(self.params)) + " except ".join(["", *sorted(self.exclude)])

    def levels_by_step(self, clock: Clock) -> dict[int, float | None]:
        """Return the scheduled sparsity by the step at which it changes; None if the weights decide it.

        Before the first of these steps, and where it is 0, nothing is masked.
        """
        raise NotImplementedError

    def check_model(self, model: PreTrainedModel) -> None:
        from sparse_xp.functional.selection import select_parameters

        for patterns in (self.params, self.exclude):
            select_parameters(model, patterns)

    def attach(self, context: HookContext) -> None:
        from sparse_xp.functional.selection import select_parameters, tied_to_embeddings

        self.check_model(context.model)
        self.targets = select_parameters(context.model, self.params)
        for name in select_parameters(context.model, self.exclude):
            self.targets.pop(name, None)
        # A language model's output matrix is usually its word embedding. A pattern for matrices would prune both.
        tied = tied_to_embeddings(context.model)
        for name in [name for name, weight in self.targets.items() if id(weight) in tied and name not in self.params]:
            del self.targets[name]
            say(f"{type(self).__name__}: {name} is an embedding too, and stays dense (its name in params prunes it)")
        if not self.targets:
            removed_by = f"exclude={' '.join(self.exclude)} removes" if self.exclude else "Embeddings are"
            raise UserError(
                f"{type(self).__name__}: nothing is left to prune. {removed_by} everything that "
                f"params={' '.join(self.params)} matches."
            )
        self.masks, self.factors = {}, {}  # one configuration object may serve several runs

    def before_update(self, context: HookContext) -> None:
        from sparse_xp.functional.masks import multiply_gradients

        # Masked gradients keep pruned weights out of the clipped norm and out of Adam's moments.
        if self.masks:
            multiply_gradients(*self.masked_targets())

    def after_update(self, context: HookContext) -> None:
        # Adam's momentum and weight decay may move a pruned weight, so it is set to zero after every update.
        self.zero_pruned()

    def allows_cuts(self, context: HookContext, cuts: Cuts) -> bool:
        return False  # scores and remembered weights have the shapes of the start

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
            weight = self.targets[name].detach()
            revived = int((weight[~mask.to(weight.device)] != 0).sum())
            if revived:
                raise RuntimeError(f"{revived} pruned weights of {name} are no longer zero at step {context.step}.")

    def logs(self, context: HookContext) -> dict[str, float]:
        return {"sparsity": self.measured_sparsity()}

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks}

    def measured_sparsity(self) -> float:
        """Return the fraction of zeros in all targets together."""
        import torch

        weights = self.targets.values()
        counts = torch.stack([torch.count_nonzero(weight.detach()) for weight in weights])  # read at once
        total = sum(weight.numel() for weight in weights)
        return (total - int(counts.sum())) / total

    def check_shapes(self, model: nn.Module, mask_type: object, pattern: Pattern) -> None:
        """Raise UserError at start-up if a target's shape is not divisible by the mask pattern."""
        from sparse_xp.functional.masks import global_masks, magnitude_scores
        from sparse_xp.functional.selection import holds_transposed

        transposed = {id(weight) for each in model.modules() if holds_transposed(each) for weight in each.parameters()}
        turned = next((name for name, weight in self.targets.items() if id(weight) in transposed), None)
        if turned and pattern.kind != "unstructured":
            raise UserError(
                f"mask_type={mask_type}: '{turned}' is stored as [in, out] (a Conv1D of transformers), and tiles "
                "are of [out, in]. Leave it out (exclude), or write mask_type=unstructured."
            )
        # A mask of sparsity 0 runs into the same check as every later mask, hours of training earlier.
        try:
            global_masks({name: magnitude_scores(w.detach()) for name, w in self.targets.items()}, 0.0, pattern)
        except ValueError as error:
            raise UserError(f"mask_type={mask_type}: {error}.") from error

    def zero_pruned(self) -> None:
        """Set the masked weights to zero."""
        from sparse_xp.functional.masks import multiply_weights

        if self.masks:
            multiply_weights(*self.masked_targets())

    def masked_targets(self) -> tuple[list[Parameter], list[Tensor]]:
        """Return the targets that have a mask, and what to multiply each of them with."""
        return [self.targets[name] for name in self.masks], [self.factor(name) for name in self.masks]

    def factor(self, name: str) -> Tensor:
        """Return the mask of a target as what to multiply with, where its weights are now.

        It is kept as numbers of their type. A product with truth values takes three times as long on a CPU, and a GPU
        multiplies many tensors in one call only if all are of one type.
        """
        mask, weight = self.masks[name], self.targets[name]
        made_of, factor = self.factors.get(name, (None, mask))
        if made_of is not mask or factor.dtype != weight.dtype or factor.device != weight.device:
            factor = mask.to(weight.device, weight.dtype)
            self.factors[name] = mask, factor
        return factor


def decay_remembered(values: Mapping[str, Tensor], targets: Mapping[str, Parameter], optimizer: Optimizer) -> None:
    """Shrink remembered ``values`` of pruned weights of ``targets`` by the decoupled weight decay of a step.

    The optimizer decays the zeros in the model; the values behind them have to shrink with its rate too.
    """
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    for name, value in values.items():
        group = groups.get(id(targets[name]), {})
        if group.get("weight_decay"):
            value.mul_(1 - group["lr"] * group["weight_decay"])


@dataclass(kw_only=True)
class ConstantPruning(Pruning):
    """Keep the zeros of a sparse checkpoint (sparse transfer learning).

    Attributes:
        min_sparsity: The minimum overall fraction of zeros required of the targets at the start. It keeps a dense
            checkpoint from being trained densely in a run that is called sparse. 0 accepts any checkpoint.
        refresh_masks: Recompute the masks before every step, so that a weight that becomes exactly zero during training
            stays zero as well. By default the masks are those of the first step.
    """

    min_sparsity: float = 0.05
    refresh_masks: bool = False

    display: ClassVar[Display] = replace(Pruning.display, unknown_sparsity="kept")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.min_sparsity <= 1:
            raise ValueError(f"ConstantPruning.min_sparsity={self.min_sparsity}: expected a fraction in [0, 1].")

    @property
    def zeros_at_end(self) -> float | None:
        return self.min_sparsity or None

    def attach(self, context: HookContext) -> None:
        super().attach(context)
        sparsity = self.measured_sparsity()
        if sparsity < self.min_sparsity - SPARSITY_TOLERANCE:
            raise UserError(
                f"locked sparsity keeps the zeros of a sparse checkpoint, but {context.source} has {sparsity:.1%} "
                f"zeros in {' '.join(self.params)}, expected at least {self.min_sparsity:.0%}. Start from a sparse "
                "checkpoint (model.checkpoint=DIR or a hub id), or prune this one (recipe=gradual80)."
            )

    def levels_by_step(self, clock: Clock) -> dict[int, float | None]:
        start, _ = self.window(clock)
        return {next(step for step in range(clock.total_steps + 1) if clock.epoch(step) >= start): None}

    def spans(self, clock: Clock) -> list[Span]:
        return [Span(self.window(clock)[0], clock.end, HOLDS)]

    def before_step(self, context: HookContext) -> None:
        start, _ = self.window(context.clock)
        if context.clock.epoch(context.step) >= start and (self.refresh_masks or not self.masks):
            self.masks = {name: weight.detach() != 0 for name, weight in self.targets.items()}
