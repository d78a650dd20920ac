"""Modifiers of single parameters: freeze or unfreeze them (``TrainableParams``), or set them (``SetParam``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.errors import UserError
from sparse_xp.modifiers.base import Modifier, OneTime
from sparse_xp.modifiers.display import Display

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from sparse_xp.modifiers.context import HookContext


def check_params(name: str, params: list[str]) -> None:
    """Raise ValueError if a modifier of class ``name`` names no parameters."""
    if not params:
        raise ValueError(f"{name}.params is empty: name parameters, 're:<pattern>' or __ENCODER__.")


@dataclass(kw_only=True)
class TrainableParams(Modifier):
    """Freeze or unfreeze parameters from ``start`` to ``end``. Afterwards they are as the model had them.

    A frozen parameter has no gradient, so neither momentum nor weight decay moves it. Where two of these modifiers
    overlap, the one that starts later decides.

    Attributes:
        start: The time from which it acts, in epochs, ``'N steps'`` or ``'N%'`` of the run.
        end: The time until which it acts.
        params: The parameters: exact names, ``re:<pattern>``, or a token such as ``__ENCODER__``.
        trainable: False freezes them, True lets them train.
        params_strict: Whether an entry of ``params`` that matches nothing is an error (the default).
    """

    params: list[str] = field(default_factory=list)
    trainable: bool
    params_strict: bool = True

    display: ClassVar[Display] = Display(parameter_fields=("params",))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_params("TrainableParams", self.params)
        self.targets: dict[str, Parameter] = {}
        self.original: dict[str, bool] = {}

    @property
    def exclusive_resource(self) -> str:
        return "training of " + " ".join(sorted(self.params))

    def check_model(self, model: PreTrainedModel) -> None:
        from sparse_xp.functional.selection import select_parameters

        select_parameters(model, self.params, self.params_strict)

    def attach(self, context: HookContext) -> None:
        from sparse_xp.functional.selection import select_parameters

        self.targets = select_parameters(context.model, self.params, self.params_strict)
        # All modifiers attach before any of them acts, so these flags are the model's own.
        self.original = {name: parameter.requires_grad for name, parameter in self.targets.items()}

    def acts_now(self, context: HookContext) -> bool:
        """Return whether the current step is in the window."""
        start, end = self.window(context.clock)
        return context.clock.first_step(start) <= context.step < context.clock.first_step(end)

    def before_step(self, context: HookContext) -> None:
        # DDP waits for the gradients of all parameters that it was given. With several processes they are therefore
        # computed, and dropped in ``before_update``.
        if self.acts_now(context) and (self.trainable or context.accelerator.num_processes == 1):
            for parameter in self.targets.values():
                parameter.requires_grad_(self.trainable)
                if not self.trainable:
                    parameter.grad = None

    def loss(
        self, context: HookContext, rows: list[int], batch: dict[str, Tensor], outputs: Any, loss: Tensor
    ) -> Tensor:
        if self.acts_now(context) and not loss.requires_grad:
            raise UserError(
                f"TrainableParams freezes every trainable parameter at step {context.step}. Name fewer parameters than "
                f"{' '.join(self.params)}."
            )
        return loss

    def before_update(self, context: HookContext) -> None:
        if not self.acts_now(context) or context.accelerator.num_processes == 1:
            return
        for name, parameter in self.targets.items():
            if not self.trainable:
                parameter.grad = None
            elif not self.original[name] and parameter.grad is not None:
                # DDP averages the gradients of what it was given as trainable.
                parameter.grad = context.accelerator.reduce(parameter.grad, "mean")

    def after_update(self, context: HookContext) -> None:
        # The flags are restored after every step and set again before the next one. Overlapping windows can then end in
        # any order, and a checkpoint needs no state.
        if self.acts_now(context):
            for name, parameter in self.targets.items():
                parameter.requires_grad_(self.original[name])


@dataclass(kw_only=True)
class SetParam(OneTime):
    """Set parameters to a value once. They continue to train from there.

    Attributes:
        start: It acts in the first step at or after this time, in epochs, ``'N steps'`` or ``'N%'`` of the run.
        params: The parameters: exact names, ``re:<pattern>``, or a token such as ``__ENCODER__``.
        val: The value that all elements of ``params`` get.
        params_strict: Whether an entry of ``params`` that matches nothing is an error (the default).
    """

    params: list[str] = field(default_factory=list)
    val: float
    params_strict: bool = True

    display: ClassVar[Display] = Display(parameter_fields=("params",))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_params("SetParam", self.params)
        if not -float("inf") < self.val < float("inf"):
            raise ValueError(f"SetParam.val={self.val}: expected a finite number.")
        self.targets: dict[str, Parameter] = {}

    def check_model(self, model: PreTrainedModel) -> None:
        from sparse_xp.functional.selection import select_parameters

        select_parameters(model, self.params, self.params_strict)

    def attach(self, context: HookContext) -> None:
        from sparse_xp.functional.selection import select_parameters

        self.targets = select_parameters(context.model, self.params, self.params_strict)

    def before_step(self, context: HookContext) -> None:
        if self.is_due(context):
            for parameter in self.targets.values():
                parameter.data.fill_(self.val)
