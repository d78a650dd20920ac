"""The modifiers of one run, in order. Each hook of the training loop calls the same hook of every modifier."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers.base import Modifier

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from sparse_xp.modifiers.context import Cuts, HookContext


class WindowError(UserError):
    """A modifier cannot act when it should in a run of this length.

    ``modifier_name``: its name in the configuration. ``reason``: what is wrong, without the modifier's name and class.
    ``other_name``: the modifier that it overlaps with, if that is the reason.
    """

    def __init__(self, message: str, modifier_name: str, reason: str, other_name: str | None = None):
        super().__init__(message)
        self.modifier_name, self.reason, self.other_name = modifier_name, reason, other_name


def window_of(name: str, modifier: Modifier, clock: Clock) -> tuple[float, float]:
    """Return the window of a modifier in epochs. Raises WindowError, naming the modifier."""
    try:
        return modifier.window(clock)
    except ValueError as error:
        kind, message = type(modifier).__name__, str(error)
        if name.rpartition(".")[2].startswith(kind):  # the name already says the class
            message = message.removeprefix(f"{kind}: ").removeprefix(f"{kind}.")
        raise WindowError(f"{name}: {message}", name, message.removeprefix(f"{kind}: ")) from error


def check_overlaps(modifiers: dict[str, Modifier], windows: dict[str, tuple[float, float]]) -> None:
    """Raise WindowError if two modifiers drive the same exclusive resource at the same time."""
    for first, second in combinations(modifiers, 2):
        resource = modifiers[first].exclusive_resource
        (first_start, first_end), (second_start, second_end) = windows[first], windows[second]
        overlap = first_start < second_end and second_start < first_end
        if resource is not None and resource == modifiers[second].exclusive_resource and overlap:
            reason = (
                f"{first} (epochs {first_start:g} to {first_end:g}) and {second} (epochs {second_start:g} to "
                f"{second_end:g}) both drive the {resource}, and overlap. Let one end before the other starts, or "
                f"remove one (~{second})."
            )
            raise WindowError(reason, first, reason, second)


class ModifierList:
    """Modifiers by their names in the configuration, sorted by their first step, then by their last.

    Where two write the same value in one step, the later one in this order wins: first a modifier that ends in the
    step, then one that acts in it once, then one that begins in it. Raises WindowError for windows that do not fit the
    run, or overlap although both drive the same resource.
    """

    def __init__(self, modifiers: dict[str, Modifier], clock: Clock):
        windows = {name: window_of(name, modifier, clock) for name, modifier in modifiers.items()}
        check_overlaps(modifiers, windows)
        order = {
            name: (clock.first_step(start), clock.first_step(end), start, end) for name, (start, end) in windows.items()
        }
        self.modifiers = dict(sorted(modifiers.items(), key=lambda item: order[item[0]]))

    def attach(self, context: HookContext) -> None:
        # Modifiers that remove modules go first, so that the others find only the modules that are really there.
        for modifier in sorted(self.modifiers.values(), key=lambda modifier: not modifier.changes_structure):
            modifier.attach(context)

    def parameters(self, context: HookContext) -> list[Parameter]:
        """Return the parameters that train beside the model."""
        return [parameter for modifier in self.modifiers.values() for parameter in modifier.parameters(context)]

    def before_step(self, context: HookContext) -> None:
        for modifier in self.modifiers.values():
            modifier.before_step(context)

    def before_batches(self, context: HookContext, rows: list[list[int]], batches: list[dict[str, Tensor]]) -> None:
        for modifier in self.modifiers.values():
            modifier.before_batches(context, rows, batches)

    def loss(
        self, context: HookContext, rows: list[int], batch: dict[str, Tensor], outputs: Any, loss: Tensor
    ) -> Tensor:
        for modifier in sorted(self.modifiers.values(), key=lambda modifier: modifier.additive_loss):
            loss = modifier.loss(context, rows, batch, outputs, loss)
        return loss

    def before_update(self, context: HookContext) -> None:
        for modifier in self.modifiers.values():
            modifier.before_update(context)

    def after_update(self, context: HookContext) -> None:
        for modifier in self.modifiers.values():
            modifier.after_update(context)

    def detach(self, context: HookContext) -> None:
        for modifier in sorted(self.modifiers.values(), key=lambda modifier: modifier.changes_structure):
            modifier.detach(context)

    def resized(self, context: HookContext, cuts: Cuts) -> None:
        for modifier in self.modifiers.values():
            modifier.resized(context, cuts)

    def allows_cuts(self, context: HookContext, cuts: Cuts) -> bool:
        """Return whether every modifier can go on training when these parameters change shape."""
        return all(modifier.allows_cuts(context, cuts) for modifier in self.modifiers.values())

    def restore_shapes(self, context: HookContext, state: dict[str, Any]) -> None:
        for name, modifier in self.modifiers.items():
            modifier.restore_shapes(context, state[name])

    def check(self, context: HookContext) -> None:
        """Raise RuntimeError if an invariant is broken, such as a pruned weight that is not zero."""
        for modifier in self.modifiers.values():
            modifier.check(context)

    def target_reached(self, context: HookContext) -> bool:
        """Return whether a model saved now satisfies every target of the recipe."""
        return all(modifier.target_reached(context) for modifier in self.modifiers.values())

    def logs(self, context: HookContext) -> dict[str, float]:
        return {name: value for m in self.modifiers.values() for name, value in m.logs(context).items()}

    def state_dict(self) -> dict[str, Any]:
        return {name: modifier.state_dict() for name, modifier in self.modifiers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, modifier in self.modifiers.items():
            modifier.load_state_dict(state[name])
