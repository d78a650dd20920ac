"""What a modifier is: a window in time, and the hooks that the training loop calls.

The hooks around a run, in the order in which they are called::

    attach                      run.start: the model is on its device, and no optimizer exists; only here may modules
                                change
    parameters                  what trains beside the model
    for each optimizer step:    training/loop.train_step
        before_step             set rates, recompute masks
            allows_cuts         another modifier asks whether it may cut parameters now
            resized             it is about to: cut what is kept about them
        before_batches          count what the terms of the loss average over
        for each micro-batch:
            forward
            loss                add or weigh terms
            backward
        before_update           gradients are complete
        optimizer.step
        after_update            put zeros back
        logs                    when a line is logged
        target_reached          when the model is evaluated: may it be the best?
        check, state_dict       when a checkpoint is saved
    restore_shapes, load_state_dict     when a run continues from one, before the first step
    detach                      run.finish, after the best weights and their state are loaded: leave a plain model
        resized                 another modifier is about to remove or cut parameters
    check                       delivery.save_model

These are the places in the command's loop. ``sparsifier/sparsifier`` calls the same hooks in the same order from a loop
of one's own, where ``before_batches`` and ``loss`` come together for each micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.clock import Clock, TimeSpec, parse_time
from sparse_xp.modifiers.display import Display, LoggedNumber, Span

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from sparse_xp.modifiers.context import Cuts, HookContext


@dataclass(kw_only=True)
class Modifier:
    """Something that acts on a run from ``start`` to ``end``. The fields of a subclass are its configuration.

    Every hook may be left out. State that must survive an interruption goes into ``state_dict`` (tensors and plain
    values only), so that a resumed run is exact.

    Attributes:
        start: The time from which it acts, in epochs, ``'N steps'`` or ``'N%'`` of the run.
        end: The time until which it acts, written in the same way.
    """

    start: TimeSpec = 0.0
    end: TimeSpec = "100%"

    #: whether an empty window is allowed (a warm-up of 0 steps), or is a mistake
    allow_empty_window: ClassVar[bool] = False
    #: whether ``attach`` removes or replaces modules; such modifiers attach first and detach last
    changes_structure: ClassVar[bool] = False
    #: whether ``loss`` adds a term; it then runs after the modifiers that reweigh the loss (distillation)
    additive_loss: ClassVar[bool] = False
    #: whether the weights, and no setting, decide how many zeros it makes
    decides_sparsity: ClassVar[bool] = False
    #: the reason why cached teacher logits cannot be used, None if they can
    live_teacher: ClassVar[str | None] = None
    #: how the recipe viewer draws it, and which values of ``logs`` are displayed
    display: ClassVar[Display] = Display()
    logged: ClassVar[tuple[LoggedNumber, ...]] = ()

    def __post_init__(self) -> None:
        """Check the values. Raises ValueError. Subclasses call ``super().__post_init__()``."""
        for name in ("start", "end"):
            parse_time(getattr(self, name), f"{type(self).__name__}.{name}")

    @property
    def post_training(self) -> bool:
        """Whether ``detach`` changes predictions; the model is then evaluated again."""
        return False

    @property
    def zeros_at_end(self) -> float | None:
        """The fraction of zeros that its weights have when the run ends; None if it makes and keeps none."""
        return None

    @property
    def needs_batches(self) -> bool:
        """Whether it asks for batches of training data beside those of the loop."""
        return False

    @property
    def needs_training_mode(self) -> bool:
        """Whether it looks at forward passes in training mode only, so that a loop in evaluation mode shows it none."""
        return False

    @property
    def learns_from_teacher(self) -> bool:
        """Whether its ``loss`` compares the model with the teacher, for which rows need no labels."""
        return False

    @property
    def exclusive_resource(self) -> str | None:
        """The resource that one modifier at a time may drive (``"learning rate"``), None if several may act at once."""
        return None

    def window(self, clock: Clock) -> tuple[float, float]:
        """Return start and end in epochs.

        Raises ValueError for a window that ends before it starts, or after the end of the run.
        """
        name = type(self).__name__
        start, end = clock.to_epochs(self.start, f"{name}.start"), clock.to_epochs(self.end, f"{name}.end")
        # In a short run a fraction may round to no step at all: that window is empty, which is no mistake.
        begins, ends = clock.to_epochs_unrounded(self.start), clock.to_epochs_unrounded(self.end)
        if begins > ends + 1e-9 or (not self.allow_empty_window and begins > ends - 1e-9):
            raise ValueError(
                f"{name}: start={self.start} is not before end={self.end} in a run of {clock.end:g} epochs."
            )
        if end > clock.end:
            raise ValueError(
                f"{name}: end={self.end} is after the end of the run ({clock.end:g} epochs). "
                f"Train for {end:g} epochs (train.epochs={end:g}), or write the time as a fraction such as '100%'."
            )
        return start, end

    def is_active(self, clock: Clock, step: int) -> bool:
        """Return whether step number ``step`` begins inside the window."""
        start, end = self.window(clock)
        return start <= clock.epoch(step) < end

    def spans(self, clock: Clock) -> list[Span]:
        """Return the spans of its bar on the time line: active, and holding its result."""
        return [Span(*self.window(clock))]

    def levels_by_step(self, clock: Clock) -> dict[int, float | None] | None:
        """Return the scheduled sparsity by the step at which it changes; None if the modifier does not prune.

        A level of None: the weights decide it. Before the first of these steps, and at 0, nothing is pruned.
        """
        return None

    def check_model(self, model: PreTrainedModel) -> None:
        """Raise UserError for a model that the modifier cannot act on. Nothing is changed.

        A run asks its student before it trains a teacher for hours.
        """

    def attach(self, context: HookContext) -> None:
        """Prepare the model. Called once, before optimizer and checkpoint; only here may modules change."""

    def parameters(self, context: HookContext) -> list[Parameter]:
        """Return parameters that train beside the model. Called once, after ``attach``; save them in ``state_dict``."""
        return []

    def before_step(self, context: HookContext) -> None:
        """Set rates and recompute masks, before the forward passes of an optimizer step."""

    def before_batches(self, context: HookContext, rows: list[list[int]], batches: list[dict[str, Tensor]]) -> None:
        """Look at all micro-batches of the step, before the first forward pass.

        A modifier that adds a mean to the loss asks ``context.shares`` here for its weight in each micro-batch.
        ``rows``: the indices of their features. ``batches``: in the command's loop they are still in host memory, where
        counting makes no GPU wait; in a loop of one's own they are where the loop has them.
        """

    def loss(
        self, context: HookContext, rows: list[int], batch: dict[str, Tensor], outputs: Any, loss: Tensor
    ) -> Tensor:
        """Return the loss to minimize, given the loss so far: the part of a micro-batch in the loss of the step.

        ``rows``: the indices of the batch's features. It is called once for each of the micro-batches, in the order of
        ``before_batches``.
        """
        return loss

    def before_update(self, context: HookContext) -> None:
        """Change gradients: they are complete, and the optimizer has not stepped yet."""

    def after_update(self, context: HookContext) -> None:
        """Repair weights: the optimizer has stepped."""

    def detach(self, context: HookContext) -> None:
        """Leave a model that loads with stock ``from_pretrained``. Called once, after training."""

    def resized(self, context: HookContext, cuts: Cuts) -> None:
        """Cut stored tensors (masks, say) of the parameters whose shape another modifier is about to change."""

    def allows_cuts(self, context: HookContext, cuts: Cuts) -> bool:
        """Return whether it can go on training when these parameters change shape between two steps.

        Otherwise they change after training. One that allows it cuts all it keeps about them in ``resized``.
        """
        return True

    def restore_shapes(self, context: HookContext, state: dict[str, Any]) -> None:
        """Give the model the shapes that it had when ``state`` was saved. Called before weights are restored."""

    def check(self, context: HookContext) -> None:
        """Raise RuntimeError if an invariant of the modifier is broken. Called at every save."""

    def target_reached(self, context: HookContext) -> bool:
        """Return whether a model saved now satisfies this modifier's target (its final sparsity, say)."""
        return True

    def is_pending(self, context: HookContext) -> bool:
        """Return whether a model saved now is to be as if this modifier were not there."""
        return False

    def logs(self, context: HookContext) -> dict[str, float]:
        """Return numbers for the log line of this step; ``logged`` says how they are shown."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors and plain values that are needed to continue exactly."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        vars(self).update(state)


@dataclass(kw_only=True)
class OneTime(Modifier):
    """A modifier that acts once, in the first step that begins at or after ``start``. It has no ``end``.

    Attributes:
        start: It acts in the first step at or after this time, in epochs, ``'N steps'`` or ``'N%'`` of the run.
        end: Not used: it acts once.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end != "100%":
            name = type(self).__name__
            raise ValueError(f"{name}.end={self.end}: {name} acts once, at start={self.start}. Leave end out.")

    def window(self, clock: Clock) -> tuple[float, float]:
        """Return ``start`` twice, in epochs."""
        start, _ = super().window(clock)
        if clock.first_step(start) >= clock.total_steps:
            raise ValueError(
                f"{type(self).__name__}: start={self.start} is after the beginning of the last step "
                f"(epoch {clock.epoch(clock.total_steps - 1):g} of {clock.end:g}): it would never act."
            )
        return start, start

    def trigger_step(self, clock: Clock) -> int:
        """Return the number of the step in which it acts."""
        return clock.first_step(self.window(clock)[0])

    def is_due(self, context: HookContext) -> bool:
        """Return whether it acts in the step that comes next."""
        return context.step == self.trigger_step(context.clock)
