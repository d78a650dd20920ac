"""``SparseCallback``: a recipe that does not distil, in any ``Trainer`` of transformers as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, has_length

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.sparsifier.callback_checks import check_callback_arguments, read_callback_recipe, warn_of_reports
from sparse_xp.sparsifier.checks import check_pruned
from sparse_xp.sparsifier.ending import finalize_or_warn, numbers_to_log
from sparse_xp.sparsifier.recipes import RecipeSource
from sparse_xp.sparsifier.sparsifier import Sparsifier
from sparse_xp.sparsifier.state_file import STATE, check_fits, check_zeros, read_state, save_state, write_beside_weights
from sparse_xp.sparsifier.trainer_checks import (
    check_enough_epochs,
    check_has_length,
    warn_of_weights_alone,
)

#: what to use where a callback is not enough
OTHER = "SparseTrainer(recipe=...), or SparseTrainerMixin with a Trainer of your own"


class SparseCallback(TrainerCallback):
    """A recipe as a callback: ``Trainer(..., callbacks=[SparseCallback("recipe.yaml")])``.

    ``SparseTrainer`` does more: it distils, keeps the best model, and removes layers or dimensions of embeddings.
    Checkpoints have the state of the recipe. Resume from one in ``output_dir``: the callback looks nowhere else. After
    training the model is plain; ``sparsifier.save`` writes it with its quantization and its recipe.

    A callback is called only after gradients are clipped. Masks of pruned weights are held in the gradient itself, as
    in ``SparseTrainer``. What scores weights by their gradient (movement and structured pruning) sees it clipped here.
    The ``Trainer`` sums the losses of micro-batches as it does without a recipe.

    A ``Trainer`` calls the callbacks of ``report_to=`` before those of ``callbacks=``, so they miss the numbers of the
    recipe. Give them in order: ``report_to="none"``, ``callbacks=[SparseCallback(...), TensorBoardCallback()]``.

    Args:
        recipe: The name of a recipe, a recipe of SparseML (a file, a stub or its text), or modifiers as objects.
        recipe_args: Numbers of the recipe to change: ``{"sparsity": 0.9}``.
        teacher: ``"disable"``: leave out what distils.
    """

    def __init__(self, recipe: RecipeSource, recipe_args: Mapping[str, Any] | None = None, teacher: str | None = None):
        self.recipe = read_callback_recipe(recipe, recipe_args, teacher, OTHER)
        self.sparsifier: Sparsifier | None = None
        self.hooks: list[RemovableHandle] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Attach the recipe, with its state in the checkpoint of a training that goes on."""
        model, optimizer = cast(nn.Module, kwargs["model"]), cast(Optimizer, kwargs["optimizer"])
        loader = cast(DataLoader[Any], kwargs["train_dataloader"])
        check_callback_arguments(args)
        warn_of_weights_alone(args)
        warn_of_reports(args)
        check_has_length(self.recipe, has_length(loader))
        if self.sparsifier is not None and (self.sparsifier.finalized or not state.global_step):
            raise UserError("The callback has trained a model already: make a new one, for a model loaded anew.")
        steps_per_epoch = state.max_steps
        if has_length(loader):
            steps_per_epoch = max(1, math.ceil(len(loader) / args.gradient_accumulation_steps))
        if self.sparsifier is None:
            check_enough_epochs(self.recipe, Clock(steps_per_epoch, state.max_steps), "num_train_epochs")
            self.sparsifier = Sparsifier(
                self.recipe,
                model,
                optimizer,
                steps_per_epoch=steps_per_epoch,
                epochs=state.max_steps / steps_per_epoch,
                batches=loader if self.recipe.needs_batches else None,
                scaler=GradScaler(enabled=False) if args.fp16 else None,  # gradients are unscaled by then
                seed=args.seed,
            )
            self.hooks = mask_gradients(self.sparsifier)
        if state.global_step:
            directory = Path(args.output_dir or ".") / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            resume_from(directory, self.sparsifier)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Set rates and masks."""
        self.running.begin_step()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Show the gradients to the modifiers."""
        self.running.before_update()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Mask the weights."""
        self.running.after_update()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Add the numbers of the recipe to the log, and the learning rate that it has set."""
        if self.sparsifier is not None and not self.sparsifier.finalized and logs and "loss" in logs:
            numbers = numbers_to_log(self.sparsifier)
            logs.update(numbers)
            state.log_history[-1].update(numbers)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Check the zeros, and write the state of the recipe into the checkpoint."""
        check_zeros(self.running)
        if args.should_save:
            directory = Path(args.output_dir or ".") / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            write_beside_weights(self.running, directory)
            save_state(self.running, directory)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Finish the recipe: the model is plain after it."""
        finalize_or_warn(self.running, "train(resume_from_checkpoint=...)")
        if self.running.finalized:
            for hook in self.hooks:
                hook.remove()

    @property
    def running(self) -> Sparsifier:
        """The recipe of the training that runs."""
        assert self.sparsifier is not None
        return self.sparsifier


def resume_from(directory: Path, sparsifier: Sparsifier) -> None:
    """Load the state of the recipe from a checkpoint in ``output_dir``.

    A callback is not told which checkpoint the ``Trainer`` has loaded, only its step. Raises UserError if the
    checkpoint of that step is missing, has no state, or is another one.
    """
    alone = "A callback resumes from output_dir alone"
    if not directory.is_dir():
        raise UserError(
            f"{alone}: there is no {directory}. Set output_dir to the directory of the checkpoint that you resume from."
        )
    if not (directory / STATE).is_file():
        raise UserError(
            f"{alone}: {directory} has no {STATE}, so it was not written with this callback. Set output_dir to the "
            "directory of the checkpoint that you resume from, or load its weights as the model of a new training."
        )
    state = read_state(directory)
    check_fits(state, sparsifier, directory)
    sparsifier.load_state_dict(state["sparsifier"])
    check_pruned(
        sparsifier.modifier_list,
        sparsifier.context,
        f"{alone}: the weights of the model are not those of {directory}. Set output_dir to the directory of the "
        "checkpoint that you resume from.",
    )


def mask_gradients(sparsifier: Sparsifier) -> list[RemovableHandle]:
    """Keep pruned weights out of the gradient from the backward pass on, where only the masks decide over it."""
    return [
        weight.register_hook(partial(masked_gradient, modifier, name))
        for modifier in sparsifier.modifiers.values()
        if isinstance(modifier, Pruning) and type(modifier).before_update is Pruning.before_update
        for name, weight in modifier.targets.items()
        if weight.requires_grad
    ]


def masked_gradient(modifier: Pruning, name: str, gradient: Tensor) -> Tensor:
    """Return the gradient of a weight without that of what is pruned now."""
    mask = modifier.masks.get(name)
    return gradient if mask is None else gradient * mask.to(gradient.device)
