"""What a callback asks before a recipe trains in a ``Trainer`` as it is."""

from __future__ import annotations

import warnings

from transformers import TrainingArguments

from sparse_xp.errors import UserError
from sparse_xp.sparsifier.recipes import LoopRecipe, RecipeSource
from sparse_xp.sparsifier.trainer_checks import check_training_arguments, read_trainer_recipe


def read_callback_recipe(recipe: RecipeSource, recipe_args: object, teacher: object, other: str) -> LoopRecipe:
    """Return the modifiers of a recipe for a callback. Raises UserError if it needs more than that.

    ``teacher``: None, or ``"disable"`` to leave out what distils. ``other``: what to use instead of a callback.
    """
    if teacher is not None and (not isinstance(teacher, str) or teacher != "disable"):
        raise UserError(
            f"teacher= of a callback is only 'disable', which leaves out what distils. To distil use {other}."
        )
    given = read_trainer_recipe(recipe, recipe_args)
    if teacher == "disable":
        given = given.without_distillation()
    check_without_trainer(given, other)
    return given


def check_without_trainer(recipe: LoopRecipe, other: str) -> None:
    """Raise UserError for a recipe that needs more than a callback. ``other``: what to use instead."""
    if recipe.distilling:
        raise UserError(
            f"{recipe.name} distils ({', '.join(recipe.distilling)}), and a callback cannot change the loss: use "
            f"{other}. Or leave the distillation out: teacher='disable'."
        )
    changing = [name for name, modifier in recipe.modifiers.items() if modifier.changes_structure]
    if changing:
        raise UserError(
            f"{', '.join(changing)} changes modules of the model before its optimizer is made, and a callback is "
            f"called after the optimizer is made: use {other}."
        )


def check_callback_arguments(args: TrainingArguments) -> None:
    """Raise UserError for settings of a ``Trainer`` that a callback cannot follow."""
    if args.deepspeed or args.fsdp:
        raise UserError("DeepSpeed and FSDP shard weights, which masks do not support: train with torchrun alone.")
    check_training_arguments(args)
    for name, remedy in (
        (
            "load_best_model_at_end",
            "SparseTrainer(recipe=...) keeps the best model that has reached the targets",
        ),
        ("auto_find_batch_size", "set per_device_train_batch_size"),
    ):
        if getattr(args, name):
            raise UserError(f"{name}=True and a recipe in a callback do not go together: {remedy}.")


def warn_of_reports(args: TrainingArguments) -> None:
    """Warn if the ``Trainer`` reports before the callback is called."""
    if args.report_to:
        warnings.warn(
            f"report_to={args.report_to}: a Trainer reports before it calls this callback, so the report misses the "
            "numbers of the recipe, and its learning rate is the scheduler's. Give report_to='none' and "
            "callbacks=[SparseCallback(...), TensorBoardCallback()] in this order, or use SparseTrainer(recipe=...).",
            stacklevel=3,
        )
