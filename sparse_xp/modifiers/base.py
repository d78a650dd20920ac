"""What a modifier is: a window in time and the places in the training loop where it may act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock, When, parse_when

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from sparse_xp.training.state import Run


@dataclass(kw_only=True)
class Modifier:
    """Acts on the run from ``start`` to ``end``. The fields of a subclass are its configuration.

    The hooks below are called by ``loop.train`` in the order they stand here; every one may be left out.
    State that must survive an interruption goes into ``state_dict`` (tensors and plain values only).
    """

    start: When = 0.0
    end: When = "100%"

    #: whether a window of no length is a way to write "not at all" (a warm-up of 0) or a mistake
    may_be_empty: ClassVar[bool] = False
    #: whether ``attach`` removes or replaces parts of the model: such modifiers attach before all others, detach after
    structural: ClassVar[bool] = False
    #: whether ``loss`` adds a term of its own: it comes after those that weigh what they are given (distillation)
    adds_loss: ClassVar[bool] = False
    #: why stored logits of the teacher do not suffice, None if they do
    live_teacher: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Refuse impossible values. Subclasses call ``super().__post_init__()``."""
        for name in ("start", "end"):
            parse_when(getattr(self, name), f"{type(self).__name__}.{name}")

    @property
    def late(self) -> bool:
        """Whether ``detach`` changes what the model predicts: it is evaluated once more, then."""
        return False

    @property
    def occupies(self) -> str | None:
        """What no other modifier may touch at the same time (``"learning rate"``), None if it can share."""
        return None

    def window(self, clock: Clock) -> tuple[float, float]:
        """Start and end in epochs. Raises ValueError for one that ends before it starts, or behind the run."""
        name = type(self).__name__
        start, end = clock.at(self.start, f"{name}.start"), clock.at(self.end, f"{name}.end")
        # A short run may round a fraction of itself to no step at all: that window is empty, not wrong.
        begins, ends = clock.exactly(self.start), clock.exactly(self.end)
        if begins > ends + 1e-9 or (not self.may_be_empty and begins > ends - 1e-9):
            raise ValueError(
                f"{name}: start={self.start} is not before end={self.end} in a run of {clock.end:g} epochs."
            )
        if end > clock.end:
            raise ValueError(
                f"{name}: end={self.end} lies behind the end of the run ({clock.end:g} epochs). "
                f"Give train.epochs={end:g}, or write the time as a fraction such as '100%'."
            )
        return start, end

    def acts(self, clock: Clock, step: int) -> bool:
        """Whether step number ``step`` begins inside the window."""
        start, end = self.window(clock)
        return start <= clock.epoch(step) < end

    def attach(self, run: Run) -> None:
        """Once, before optimizer and checkpoint are there: the only place where modules may change."""

    def parameters(self, run: Run) -> list[Parameter]:
        """What trains beside the model, asked once after ``attach``; belongs into ``state_dict`` too."""
        return []

    def before_step(self, run: Run) -> None:
        """Before the forward passes of an optimizer step: set rates, recompute masks."""

    def loss(self, run: Run, rows: list[int], batch: dict[str, Tensor], outputs: Any, loss: Tensor) -> Tensor:
        """The loss to minimise, given the loss so far; ``rows`` are the numbers of the batch's features."""
        return loss

    def before_update(self, run: Run) -> None:
        """Gradients are complete, the optimizer has not stepped yet."""

    def after_update(self, run: Run) -> None:
        """The optimizer has stepped."""

    def detach(self, run: Run) -> None:
        """Once, after training: leave a model that loads with stock ``from_pretrained``."""

    def check(self, run: Run) -> None:
        """Raise RuntimeError if what the modifier promises does not hold now. Called at every save."""

    def reached(self, run: Run) -> bool:
        """Whether a model saved now satisfies this modifier's goal (its final sparsity, say)."""
        return True

    def logs(self, run: Run) -> dict[str, float]:
        """Numbers for the log line of this step."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values needed to continue exactly."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        vars(self).update(state)


@dataclass(kw_only=True)
class OneTime(Modifier):
    """Acts once, in the first step that begins at or after ``start``. Has no ``end``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end != "100%":
            name = type(self).__name__
            raise ValueError(f"{name}.end={self.end}: {name} acts once, at start={self.start}. Leave end out.")

    def window(self, clock: Clock) -> tuple[float, float]:
        """A moment: ``start``, twice."""
        start, _ = super().window(clock)
        if clock.first_step(start) >= clock.total_steps:
            raise ValueError(
                f"{type(self).__name__}: start={self.start} lies behind the beginning of the last step "
                f"(epoch {clock.epoch(clock.total_steps - 1):g} of {clock.end:g}): it would never act."
            )
        return start, start

    def moment(self, clock: Clock) -> int:
        """The number of the step."""
        return clock.first_step(self.window(clock)[0])

    def due(self, run: Run) -> bool:
        """Whether the step that is about to be made is the one."""
        return run.progress.step == self.moment(run.clock)
