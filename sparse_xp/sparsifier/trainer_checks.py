"""What a ``Trainer`` is asked before a recipe trains in it."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, Trainer

from sparse_xp.errors import UserError
from sparse_xp.sparsifier.models import unwrapped
from sparse_xp.sparsifier.recipes import LoopRecipe

#: parts of the names of optimizers that update weights during the backward pass
FUSED = ("lomo", "layerwise")


def inner_model(trainer: Trainer) -> nn.Module:
    """Return the model of a ``Trainer`` without what is wrapped around it."""
    assert trainer.model is not None
    return unwrapped(trainer.model)


def check_trainer(trainer: Trainer) -> None:
    """Raise UserError for settings of a ``Trainer`` under which masks would not hold."""
    args = trainer.args
    shards = {"DeepSpeed": trainer.is_deepspeed_enabled, "FSDP": trainer.is_fsdp_enabled or bool(args.fsdp)}
    if name := next((name for name, enabled in shards.items() if enabled), None):
        raise UserError(
            f"{name} shards weights and optimizer, which masks do not support. An encoder fits on one device: train "
            "with DistributedDataParallel (torchrun)."
        )
    if args.n_gpu > 1:
        raise UserError(
            f"The Trainer would use DataParallel on {args.n_gpu} GPUs, whose copies of the model know no recipe: start "
            "it with torchrun, or choose one with CUDA_VISIBLE_DEVICES."
        )
    if args.auto_find_batch_size:
        raise UserError(
            "auto_find_batch_size=True starts training again with other steps, and the recipe has begun. Set "
            "per_device_train_batch_size, and gradient_accumulation_steps for a larger batch."
        )
    if any(part in str(args.optim).lower() for part in FUSED):
        raise UserError(
            f"optim={args.optim} updates weights during the backward pass, before gradients can be masked. Use "
            "adamw_torch."
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
    if recipe.has_fixed_length and not has_length:
        raise UserError(
            f"{recipe.name} counts in epochs, and the training data has no length that would say what an epoch is. "
            "Give a dataset with a length, or modifiers with times as '60%' or '500 steps'."
        )


def check_scheduler(scheduler: LRScheduler | None, optimizer: Optimizer) -> None:
    """Raise UserError if a scheduler of the user's does not know the parameters that the recipe has added."""
    if scheduler is not None and len(getattr(scheduler, "base_lrs", ())) not in (0, len(optimizer.param_groups)):
        raise UserError(
            "The recipe trains parameters beside the model (projections of hidden layers), and the scheduler in "
            "optimizers= does not know their group: leave it out, optimizers=(optimizer, None)."
        )
