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

from sparse_xp.errors import UserError
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.sparsifier.ending import finalize_or_warn, numbers_to_log
from sparse_xp.sparsifier.recipes import LoopRecipe, RecipeSource, read_loop_recipe
from sparse_xp.sparsifier.sparsifier import Sparsifier
from sparse_xp.sparsifier.state_file import check_zeros, read_state, save_state, write_beside_weights
from sparse_xp.sparsifier.trainer_checks import check_has_length

#: what to use where a callback is not enough
OTHER = "SparseTrainer(recipe=...), or SparseTrainerMixin with a Trainer of your own"


class SparseCallback(TrainerCallback):
    """A recipe as a callback: ``Trainer(..., callbacks=[SparseCallback("recipe.yaml")])``.

    ``SparseTrainer`` does more: it distils, keeps the best model, and removes layers or dimensions of embeddings.
    Checkpoints have the state of the recipe; resume from one in ``output_dir``. After training the model is plain;
    ``sparsifier.save`` writes it with its quantization and its recipe.

    A callback is asked only after gradients are clipped. Masks of pruned weights are held in the gradient itself, as in
    ``SparseTrainer``. What scores weights by their gradient (movement and structured pruning) sees it clipped here.

    Args:
        recipe: The name of a recipe, a recipe of SparseML (a file, a stub or its text), or modifiers as objects.
        recipe_args: Numbers of the recipe to change: ``{"sparsity": 0.9}``.
    """

    def __init__(self, recipe: RecipeSource, recipe_args: Mapping[str, Any] | None = None):
        self.recipe = read_loop_recipe(recipe, recipe_args or {})
        self.sparsifier: Sparsifier | None = None
        self.hooks: list[RemovableHandle] = []
        check_without_trainer(self.recipe, OTHER)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Attach the recipe, with its state in the checkpoint of a training that goes on."""
        model, optimizer = cast(nn.Module, kwargs["model"]), cast(Optimizer, kwargs["optimizer"])
        loader = cast(DataLoader[Any], kwargs["train_dataloader"])
        check_arguments(args)
        check_has_length(self.recipe, has_length(loader))
        if self.sparsifier is not None and (self.sparsifier.finalized or not state.global_step):
            raise UserError("The callback has trained a model already: make a new one, for a model loaded anew.")
        steps_per_epoch = state.max_steps
        if has_length(loader):
            steps_per_epoch = max(1, math.ceil(len(loader) / args.gradient_accumulation_steps))
        if self.sparsifier is None:
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
            self.sparsifier.load_state_dict(read_state(directory)["sparsifier"])
            check_zeros(self.sparsifier)

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


def check_without_trainer(recipe: LoopRecipe, other: str) -> None:
    """Raise UserError for a recipe that needs more than a callback. ``other``: what to use instead."""
    if recipe.distilling:
        raise UserError(
            f"{recipe.name} distils ({', '.join(recipe.distilling)}), and a callback cannot change the loss: use "
            f"{other}."
        )
    changing = [name for name, modifier in recipe.modifiers.items() if modifier.changes_structure]
    if changing:
        raise UserError(
            f"{', '.join(changing)} changes modules of the model before its optimizer is made, and a callback is asked "
            f"later: use {other}."
        )


def check_arguments(args: TrainingArguments) -> None:
    """Raise UserError for settings of a ``Trainer`` that a callback cannot follow."""
    if args.deepspeed or args.fsdp:
        raise UserError("DeepSpeed and FSDP shard weights, which masks do not support: train with torchrun alone.")
    for name, remedy in (
        (
            "load_best_model_at_end",
            "SparseTrainer(recipe=...) keeps the best model that has reached the targets",
        ),
        ("auto_find_batch_size", "set per_device_train_batch_size"),
    ):
        if getattr(args, name):
            raise UserError(f"{name}=True and a recipe in a callback do not go together: {remedy}.")


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
