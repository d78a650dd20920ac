"""What a ``Trainer`` is asked before a recipe trains in it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import SaveStrategy
from transformers.training_args import OptimizerNames

from sparse_xp.clock import Clock, parse_time
from sparse_xp.errors import UserError
from sparse_xp.modifiers import Modifier
from sparse_xp.sparsifier.models import unwrapped
from sparse_xp.sparsifier.recipes import LoopRecipe, RecipeSource, read_loop_recipe
from sparse_xp.sparsifier.sparsifier import Sparsifier

#: parts of the names of optimizers that update weights during the backward pass
FUSED = ("lomo", "layerwise")


def inner_model(trainer: Trainer) -> nn.Module:
    """Return the model of a ``Trainer`` without what is wrapped around it."""
    assert trainer.model is not None
    return unwrapped(trainer.model)


def check_bases(cls: type, mixin: type) -> None:
    """Raise UserError if a ``Trainer`` comes before the mixin of a recipe among the base classes of ``cls``."""
    before = cls.__mro__[: cls.__mro__.index(mixin)]
    for other in before:
        if issubclass(other, Trainer) and not issubclass(other, mixin):
            raise UserError(
                f"class {cls.__name__}: {mixin.__name__} has to come before {other.__name__} among the base classes: "
                f"class {cls.__name__}({mixin.__name__}, {other.__name__})."
            )


def check_is_trainer(given: object) -> None:
    """Raise UserError for the mixin of a recipe without a ``Trainer``."""
    if not isinstance(given, Trainer):
        raise UserError(
            f"{type(given).__name__} is no Trainer: SparseTrainerMixin comes before one among the base classes, as in "
            "class MyTrainer(SparseTrainerMixin, Trainer). SparseTrainer is that class."
        )


def read_trainer_recipe(recipe: RecipeSource, recipe_args: object) -> LoopRecipe:
    """Return the modifiers of a recipe. Raises UserError; also for ``recipe_args`` that are no numbers by name."""
    if recipe_args is not None and not isinstance(recipe_args, Mapping):
        raise UserError(f"recipe_args={recipe_args!r}: expected numbers by name, such as {{'sparsity': 0.9}}.")
    if not_text := [name for name in recipe_args or {} if not isinstance(name, str)]:
        raise UserError(f"recipe_args: {not_text[0]!r} is no name. Expected such as {{'sparsity': 0.9}}.")
    return read_loop_recipe(recipe, recipe_args or {})


def check_trainer(trainer: Trainer) -> None:
    """Raise UserError for settings of a ``Trainer`` under which masks would not hold."""
    args = trainer.args
    shards = {"DeepSpeed": trainer.is_deepspeed_enabled, "FSDP": trainer.is_fsdp_enabled or bool(args.fsdp)}
    if name := next((name for name, enabled in shards.items() if enabled), None):
        raise UserError(
            f"{name} shards weights and optimizer, which masks do not support. An encoder fits on one device: train "
            "with DistributedDataParallel (torchrun)."
        )
    check_training_arguments(args)
    if args.auto_find_batch_size:
        raise UserError(
            "auto_find_batch_size=True starts training again with other steps, and the recipe has begun. Set "
            "per_device_train_batch_size, and gradient_accumulation_steps for a larger batch."
        )


def check_training_arguments(args: TrainingArguments) -> None:
    """Raise UserError for DataParallel, and for an optimizer that updates weights during the backward pass."""
    if args.n_gpu > 1:
        raise UserError(
            f"The Trainer would use DataParallel on {args.n_gpu} GPUs, whose copies of the model know no recipe: start "
            "it with torchrun, or choose one with CUDA_VISIBLE_DEVICES."
        )
    optim = OptimizerNames(args.optim).value
    if any(part in optim for part in FUSED):
        raise UserError(
            f"optim={optim} updates weights during the backward pass, before gradients can be masked. Use adamw_torch."
        )


def warn_of_weights_alone(args: TrainingArguments) -> None:
    """Warn if checkpoints will have no optimizer, without which nothing resumes exactly."""
    if args.save_only_model and args.save_strategy != SaveStrategy.NO:
        warnings.warn(
            "save_only_model=True: checkpoints have no optimizer, and a training that resumes from one has other "
            "weights than an uninterrupted one. Leave it out to resume exactly.",
            stacklevel=3,
        )


def check_may_train(sparsifier: Sparsifier | None, resume_from_checkpoint: str | bool | None) -> None:
    """Raise UserError if an earlier ``train()`` has finished the recipe, or was interrupted and is not continued."""
    if sparsifier is None:
        return
    if sparsifier.finalized:
        raise UserError("train() has finished the recipe already: make a new trainer to train on.")
    if not resume_from_checkpoint:
        raise UserError(
            "An earlier train() was interrupted: continue it with train(resume_from_checkpoint=True), or make a new "
            "trainer with a model loaded anew."
        )


def check_recipe(trainer: Trainer, recipe: LoopRecipe) -> None:
    """Raise UserError for a recipe that a ``Trainer`` of sentence-transformers cannot follow.

    Its batches are texts, or inputs of several forward passes: the recipe gets no batches of the model's inputs.
    """
    if isinstance(inner_model(trainer), PreTrainedModel) or not hasattr(trainer, "collect_features"):
        return
    if hidden := recipe.distilling_hidden:
        raise UserError(
            f"{', '.join(hidden)} compares hidden layers, which is not there for models of sentence-transformers. "
            "Compare their embeddings or scores with Distillation()."
        )
    if after := [name for name, each in recipe.modifiers.items() if getattr(each, "calibration_rows", None)]:
        raise UserError(
            f"{', '.join(after)} calibrates after training, which is not there for models of sentence-transformers. "
            "Quantize during training: Quantization(start='70%')."
        )


def check_has_length(recipe: LoopRecipe, has_length: bool) -> None:
    """Raise UserError for a recipe in epochs where the training data has no length."""
    if has_length:
        return
    remedy = "Give a dataset with a length, or times as '60%' or '500 steps'."
    if recipe.has_fixed_length:
        raise UserError(
            f"{recipe.name} counts in epochs, and the training data has no length that would say what an epoch is. "
            f"{remedy}"
        )
    for name, modifier in recipe.modifiers.items():
        if times := times_in_epochs(modifier):
            raise UserError(
                f"{name} counts in epochs ({', '.join(times)}), and the training data has no length that would say "
                f"what an epoch is. {remedy}"
            )


def times_in_epochs(modifier: Modifier) -> list[str]:
    """Return the times of a modifier that were written in epochs: ``start=0.5``.

    Time 0 is the same in every unit. The default of a field was not written: without a length it is a part of the
    training.
    """
    return [
        f"{item.name}={value}"
        for item in fields(modifier)
        if item.type == "TimeSpec"
        and (value := getattr(modifier, item.name)) not in (None, item.default)
        and (time := parse_time(value))[1] == "epochs"
        and time[0]
    ]


def check_enough_epochs(recipe: LoopRecipe, clock: Clock, setting: str) -> None:
    """Raise UserError for a recipe with more epochs than the training. ``setting``: the argument that sets those."""
    if recipe.has_fixed_length and recipe.epochs is not None and recipe.epochs > clock.end:
        raise UserError(
            f"{recipe.name} has {recipe.epochs:g} epochs, and training has {clock.end:g}: the recipe would not be "
            f"finished. Set {setting}={recipe.epochs:g} (without max_steps), or change the times in the recipe."
        )


def check_scheduler(scheduler: LRScheduler | None, optimizer: Optimizer) -> None:
    """Raise UserError if a scheduler of the user's does not know the parameters that the recipe has added."""
    if scheduler is not None and len(getattr(scheduler, "base_lrs", ())) not in (0, len(optimizer.param_groups)):
        raise UserError(
            "The recipe trains parameters beside the model (projections of hidden layers), and the scheduler in "
            "optimizers= does not know their group: leave it out, optimizers=(optimizer, None)."
        )
