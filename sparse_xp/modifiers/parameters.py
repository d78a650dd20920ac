"""Parameters by name: which of them train, and values set by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.errors import UserError
from sparse_xp.modifiers.base import Modifier, OneTime
from sparse_xp.modifiers.display import Display

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from sparse_xp.modifiers.context import HookContext


def check_params(name: str, params: list[str]) -> None:
    """Raise ValueError if a modifier of class ``name`` names no parameters."""
    if not params:
        raise ValueError(f"{name}.params is empty: name parameters, 're:<pattern>' or __ENCODER__.")


@dataclass(kw_only=True)
class TrainableParams(Modifier):
    """Freeze ``params`` (``trainable=False``) or let them train from ``start`` to ``end``, then be as before.

    ``params_strict``: a pattern that matches nothing is an error. Of two at the same time, the one that starts later
    decides. A frozen parameter has no gradient, so neither momentum nor weight decay move it.
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

    def attach(self, context: HookContext) -> None:
        from sparse_xp.functional.selection import select_parameters

        self.targets = select_parameters(context.model, self.params, self.params_strict)
        # Every modifier attaches before the first one acts, so these are the model's own, whatever others do later.
        self.original = {name: parameter.requires_grad for name, parameter in self.targets.items()}

    def active(self, context: HookContext) -> bool:
        """Whether the step that is being made lies in the window."""
        start, end = self.window(context.clock)
        return context.clock.first_step(start) <= context.step < context.clock.first_step(end)

    def before_step(self, context: HookContext) -> None:
        # DDP waits for the gradient of every parameter that it was given: there they are computed and dropped.
        if self.active(context) and (self.trainable or context.accelerator.num_processes == 1):
            for parameter in self.targets.values():
                parameter.requires_grad_(self.trainable)
                if not self.trainable:
                    parameter.grad = None

    def loss(
        self, context: HookContext, rows: list[int], batch: dict[str, Tensor], outputs: Any, loss: Tensor
    ) -> Tensor:
        if self.active(context) and not loss.requires_grad:
            raise UserError(
                f"TrainableParams freezes all that could train at step {context.step}. Name fewer parameters than "
                f"{' '.join(self.params)}."
            )
        return loss

    def before_update(self, context: HookContext) -> None:
        if self.active(context) and not self.trainable and context.accelerator.num_processes > 1:
            for parameter in self.targets.values():
                parameter.grad = None

    def after_update(self, context: HookContext) -> None:
        # Restored after every step and set anew before the next: then no order of starts and ends leaves a flag wrong,
        # and there is nothing to remember over an interruption.
        if self.active(context):
            for name, parameter in self.targets.items():
                parameter.requires_grad_(self.original[name])


@dataclass(kw_only=True)
class SetParam(OneTime):
    """Fill ``params`` with ``val`` once, in the first step at or after ``start``; they go on training from there."""

    params: list[str] = field(default_factory=list)
    val: float
    params_strict: bool = True

    display: ClassVar[Display] = Display(parameter_fields=("params",))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_params("SetParam", self.params)
        if not -float("inf") < self.val < float("inf"):
            raise ValueError(f"SetParam.val={self.val}: want a finite number.")
        self.targets: dict[str, Parameter] = {}

    def attach(self, context: HookContext) -> None:
        from sparse_xp.functional.selection import select_parameters

        self.targets = select_parameters(context.model, self.params, self.params_strict)

    def before_step(self, context: HookContext) -> None:
        if self.is_due(context):
            for parameter in self.targets.values():
                parameter.data.fill_(self.val)
