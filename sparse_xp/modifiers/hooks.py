"""The modifiers of one run, in order: each hook of the loop fans out to them."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers import Modifier

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from sparse_xp.training.state import Run


class Recipe:
    """Modifiers by their names in the configuration, sorted by the step they start in, then by the one they end in.

    Where two write the same thing in one step, the later has the last word: one that ends there, then one that acts
    there once, then one that begins there.
    """

    def __init__(self, modifiers: dict[str, Modifier], clock: Clock):
        windows = {}
        for name, modifier in modifiers.items():
            try:
                windows[name] = modifier.window(clock)
            except ValueError as error:
                kind = type(modifier).__name__
                said = str(error)
                if name.rpartition(".")[2].startswith(kind):  # named for what it is: once is enough
                    said = said.removeprefix(f"{kind}: ").removeprefix(f"{kind}.")
                raise UserError(f"{name}: {said}") from error
        for first, second in combinations(modifiers, 2):
            one, other = modifiers[first].occupies, modifiers[second].occupies
            (start, end), (begin, stop) = windows[first], windows[second]
            if one is not None and one == other and start < stop and begin < end:
                raise UserError(
                    f"{first} (epochs {start:g} to {end:g}) and {second} (epochs {begin:g} to {stop:g}) both drive the "
                    f"{one}, and overlap. Let one end before the other starts, or remove one (~{second})."
                )
        order = {
            name: (clock.first_step(start), clock.first_step(end), start, end) for name, (start, end) in windows.items()
        }
        self.modifiers = dict(sorted(modifiers.items(), key=lambda item: order[item[0]]))

    def attach(self, run: Run) -> None:
        # What removes modules goes first, so that the others find the modules and parameters that are really there.
        for modifier in sorted(self.modifiers.values(), key=lambda modifier: not modifier.structural):
            modifier.attach(run)

    def parameters(self, run: Run) -> list[Parameter]:
        """What trains beside the model."""
        return [parameter for modifier in self.modifiers.values() for parameter in modifier.parameters(run)]

    def before_step(self, run: Run) -> None:
        for modifier in self.modifiers.values():
            modifier.before_step(run)

    def loss(self, run: Run, rows: list[int], batch: dict[str, Tensor], outputs: Any, loss: Tensor) -> Tensor:
        for modifier in sorted(self.modifiers.values(), key=lambda modifier: modifier.adds_loss):
            loss = modifier.loss(run, rows, batch, outputs, loss)
        return loss

    def before_update(self, run: Run) -> None:
        for modifier in self.modifiers.values():
            modifier.before_update(run)

    def after_update(self, run: Run) -> None:
        for modifier in self.modifiers.values():
            modifier.after_update(run)

    def detach(self, run: Run) -> None:
        for modifier in sorted(self.modifiers.values(), key=lambda modifier: modifier.structural):
            modifier.detach(run)

    def check(self, run: Run) -> None:
        """Raise RuntimeError if a promise is broken, such as a pruned weight that is not zero."""
        for modifier in self.modifiers.values():
            modifier.check(run)

    def reached(self, run: Run) -> bool:
        """Whether a model saved now is what the recipe asked for."""
        return all(modifier.reached(run) for modifier in self.modifiers.values())

    def logs(self, run: Run) -> dict[str, float]:
        return {name: value for m in self.modifiers.values() for name, value in m.logs(run).items()}

    def state_dict(self) -> dict[str, Any]:
        return {name: modifier.state_dict() for name, modifier in self.modifiers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, modifier in self.modifiers.items():
            modifier.load_state_dict(state[name])
