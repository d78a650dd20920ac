"""``SparseTrainer``: the recipe in a ``Trainer`` of transformers, and in its subclasses by ``SparseTrainerMixin``.

The hooks of a step are called at these points of the ``Trainer``::

    training_step       begin_step, the loss with the teacher's, backward; after the last micro-batch before_update
    optimizer.step      of the Trainer, which clips before it
    on_optimizer_step   after_update
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput, has_length

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers.context import DistillationFunction
from sparse_xp.sparsifier.checks import match_loop_teacher
from sparse_xp.sparsifier.context import TeacherFunction
from sparse_xp.sparsifier.ending import finalize_or_warn, numbers_to_log
from sparse_xp.sparsifier.recipes import RecipeSource
from sparse_xp.sparsifier.sparsifier import Sparsifier
from sparse_xp.sparsifier.state_file import (
    check_fits,
    check_zeros,
    digest,
    read_state,
    save_state,
    write_beside_weights,
)
from sparse_xp.sparsifier.trainer_checks import (
    check_bases,
    check_enough_epochs,
    check_has_length,
    check_is_trainer,
    check_may_train,
    check_recipe,
    check_scheduler,
    check_trainer,
    inner_model,
    read_trainer_recipe,
    warn_of_weights_alone,
)
from sparse_xp.sparsifier.trainer_loss import counts_items, loss_with_teacher

if TYPE_CHECKING:
    TrainerBase = Trainer
else:
    TrainerBase = object


class SparseTrainerMixin(TrainerBase):
    """A recipe in any ``Trainer``: ``class MyTrainer(SparseTrainerMixin, SentenceTransformerTrainer)``.

    Its place is before the ``Trainer`` among the base classes. ``sparsifier``: the recipe once training has begun.

    Args:
        args: The arguments of the ``Trainer``.
        recipe: The name of a recipe, a recipe of SparseML (a file, a stub or its text), or modifiers as objects.
        recipe_args: Numbers of the recipe to change: ``{"sparsity": 0.9}``.
        teacher: The model to distil from, or a function from the inputs of the model to outputs. ``"self"``: the model
            as it is before training. ``"disable"``: leave out what distils.
        distillation: A distillation loss in place of the usual one, from the outputs of the model, those of the teacher
            and the batch.
        kwargs: The keywords of the ``Trainer``.

    The learning rate is the recipe's if it sets one, otherwise the ``Trainer``'s. Times in per cent are parts of the
    training that the ``Trainer`` announces. Micro-batches of equal size make one large batch, also for models that
    ignore ``num_items_in_batch``, whose losses a ``Trainer`` adds up. The losses of a subclass with a ``compute_loss``
    of its own are summed as the ``Trainer`` does it. Raises UserError for a recipe that does not fit.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Raise UserError if a ``Trainer`` comes before the mixin among the base classes."""
        super().__init_subclass__(**kwargs)
        check_bases(cls, SparseTrainerMixin)

    def __init__(
        self,
        *args: Any,
        recipe: RecipeSource | None = None,
        recipe_args: Mapping[str, Any] | None = None,
        teacher: TeacherFunction | str | None = None,
        distillation: DistillationFunction | None = None,
        **kwargs: Any,
    ):
        check_is_trainer(self)
        if recipe is None:
            raise UserError("recipe= is missing: the name of a recipe, its file, or a list of modifiers.")
        self.sparsifier: Sparsifier | None = None
        self.sparse_recipe = read_trainer_recipe(recipe, recipe_args)
        self.sparse_teacher, self.sparse_distillation = teacher, distillation
        super().__init__(*args, **kwargs)
        # A copy of the model is made when training begins; whether the recipe wants a teacher is known now.
        given = (lambda batch: batch) if teacher == "self" else teacher
        self.sparse_recipe, _ = match_loop_teacher(self.sparse_recipe, inner_model(self), given, distillation)
        check_trainer(self)
        check_recipe(self, self.sparse_recipe)
        warn_of_weights_alone(self.args)
        if type(self).compute_loss is Trainer.compute_loss and not counts_items(inner_model(self)):
            self.model_accepts_loss_kwargs = False  # micro-batches make one large batch, as in every loop
        self.callback_handler.callbacks.insert(0, StepEnd(self))

    # The beginning and the end

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any | None = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train with the recipe, and finish it: the model is plain after it.

        A training that a callback stops before the recipe has reached its targets stays unfinished, and says so.
        """
        check_trainer(self)
        if self.model_init is not None:
            self.sparsifier = None  # the model is a new one
        check_may_train(self.sparsifier, resume_from_checkpoint)
        result = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        assert self.sparsifier is not None
        finalize_or_warn(self.sparsifier, "train(resume_from_checkpoint=...)")
        return result

    def set_initial_training_values(
        self, args: TrainingArguments, dataloader: DataLoader[Any], *others: int
    ) -> tuple[int, int, int, int, int, int | None, int]:
        """Attach the recipe as soon as the length of the training is known."""
        values = super().set_initial_training_values(args, dataloader, *others)
        clock = Clock(steps_per_epoch=values[1], total_steps=values[6])
        check_has_length(self.sparse_recipe, has_length(dataloader))
        if self.sparsifier is None:
            self.attach_recipe(clock)
        elif self.sparsifier.context.clock != clock:
            theirs = self.sparsifier.context.clock
            raise UserError(
                f"The checkpoint is of a training of {theirs.total_steps} steps, {theirs.steps_per_epoch} an epoch; "
                f"this one has {clock.total_steps}, {clock.steps_per_epoch} an epoch. Resume with the same arguments "
                "and data."
            )
        return values

    def attach_recipe(self, clock: Clock) -> None:
        """Prepare the model for the recipe, before its optimizer is made."""
        check_enough_epochs(self.sparse_recipe, clock, "num_train_epochs")
        teacher = self.sparse_teacher
        self.sparsifier = Sparsifier(
            self.sparse_recipe,
            inner_model(self),
            steps_per_epoch=clock.steps_per_epoch,
            epochs=clock.end,
            teacher=teacher.to(self.args.device) if isinstance(teacher, nn.Module) else teacher,
            batches=self.get_train_dataloader() if self.sparse_recipe.needs_batches else None,
            loss_function=self.task_loss,
            distillation=self.sparse_distillation,
            seed=self.args.seed,
            devices=self.accelerator,
        )
        self.sparse_digest = digest(getattr(self.sparsifier.context.teacher, "model", None))

    def task_loss(self, model: nn.Module, batch: Mapping[str, object]) -> Tensor:
        """Return the loss of the task alone for a batch of the training data."""
        return cast(Tensor, self.compute_loss(model, self._prepare_inputs(dict(batch))))

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Make the optimizer, and let the recipe drive it."""
        optimizer = super().create_optimizer(*([] if model is None else [model]))
        if self.sparsifier is not None and self.sparsifier.context.optimizer is None:
            self.sparsifier.use_optimizer(optimizer)
            check_scheduler(self.lr_scheduler, optimizer)
        return optimizer

    def reaches_targets(self) -> bool:
        """Return whether the model has now what the recipe asks for."""
        return self.sparsifier is None or self.sparsifier.modifier_list.target_reached(self.sparsifier.context)

    # A step

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Begin the step with the first micro-batch; mask gradients after the last, before they are clipped."""
        assert self.sparsifier is not None
        self.sparsifier.begin_step()
        if self.sparse_recipe.distilling:
            # A subclass may have a compute_loss of its own: the teacher's loss is added to whatever that returns.
            whole = partial(loss_with_teacher, self, self.sparsifier, cast(Callable[..., Tensor], self.compute_loss))
            self.compute_loss = whole  # type: ignore[method-assign]
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        finally:
            vars(self).pop("compute_loss", None)
        if self.accelerator.sync_gradients:
            self.sparsifier.before_update()
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the numbers of the recipe too, and the learning rate that it has set."""
        if "loss" in logs and self.sparsifier is not None and not self.sparsifier.finalized:
            logs.update(numbers_to_log(self.sparsifier))
        super().log(logs, start_time)

    # Checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Check the zeros, and write the model: a checkpoint of the training gets the state of the recipe too.

        Raises UserError if a pruned weight is not zero.
        """
        if self.sparsifier is not None:
            check_zeros(self.sparsifier)
        super().save_model(output_dir, _internal_call)
        if self.sparsifier is not None and self.args.should_save:
            directory = Path(output_dir or self.args.output_dir or ".")
            write_beside_weights(self.sparsifier, directory)
            if _internal_call and not self.sparsifier.finalized:
                save_state(self.sparsifier, directory, self.sparse_digest)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load weights and recipe. The model gets its structure before the weights."""
        state = read_state(Path(resume_from_checkpoint))
        if self.sparsifier is None:
            self.attach_recipe(Clock(state["steps_per_epoch"], state["sparsifier"]["total_steps"]))
        assert self.sparsifier is not None
        check_fits(state, self.sparsifier, Path(resume_from_checkpoint))
        if state["teacher"] != self.sparse_digest:
            raise UserError(
                f"The teacher is not the one that {resume_from_checkpoint} was trained with: give the same. With "
                "teacher='self' that is the model with which training began, so begin with that model again."
            )
        if state["model"] is None:
            super()._load_from_checkpoint(resume_from_checkpoint, *([] if model is None else [model]))
        else:
            self.sparsifier.context.model.load_state_dict(state["model"])
        self.sparsifier.load_state_dict(state["sparsifier"])

    def _load_best_model(self) -> None:
        """Load the best model with the state of the recipe that belongs to it."""
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any | None) -> bool:
        """Return whether the model is the best so far among those that have what the recipe asks for."""
        return self.reaches_targets() and super()._determine_best_metric(metrics, trial)


class StepEnd(TrainerCallback):
    """Puts the zeros back after each update of a trainer's weights."""

    def __init__(self, trainer: SparseTrainerMixin):
        self.trainer = trainer

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Mask the weights."""
        assert self.trainer.sparsifier is not None
        self.trainer.sparsifier.after_update()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Clear the gradients of what trains beside the model, which ``model.zero_grad()`` does not reach."""
        cast(Optimizer, self.trainer.optimizer).zero_grad()


class SparseTrainer(SparseTrainerMixin, Trainer):
    """The ``Trainer`` of transformers with a recipe and a teacher. ``SparseTrainerMixin`` lists its arguments."""
