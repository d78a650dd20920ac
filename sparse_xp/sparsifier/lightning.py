"""``LightningCallback``: a recipe that does not distil, in a ``Trainer`` of Lightning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.sparsifier.callback_checks import read_callback_recipe
from sparse_xp.sparsifier.checks import check_pruned
from sparse_xp.sparsifier.ending import finalize_or_warn, numbers_to_log
from sparse_xp.sparsifier.recipes import RecipeSource
from sparse_xp.sparsifier.sparsifier import Sparsifier
from sparse_xp.sparsifier.state_file import check_fits, check_zeros
from sparse_xp.sparsifier.trainer_checks import check_enough_epochs, check_has_length

try:
    from lightning.pytorch import Callback, LightningModule
    from lightning.pytorch import Trainer as LightningTrainer
except ModuleNotFoundError as error:
    raise UserError("LightningCallback needs Lightning: pip install 'sparse-xp[lightning]'.") from error

#: the beginnings of the names of strategies that shard weights
SHARDING = ("FSDP", "DeepSpeed", "ModelParallel")
#: what to use where a callback is not enough
LOOP = "Sparsifier(recipe, model, optimizer) in a loop of your own"


class LightningCallback(Callback):  # type: ignore[misc, unused-ignore]  # Lightning need not be installed
    """A recipe as a callback: ``Trainer(callbacks=[LightningCallback("recipe.yaml", module="model")])``.

    Checkpoints of the ``Trainer`` have its state, ``fit(ckpt_path=...)`` goes on with it. After training the model is
    plain; ``sparsifier.save`` writes it. A recipe that distils changes the loss: use ``Sparsifier`` in a loop.

    Args:
        recipe: The name of a recipe, a recipe of SparseML (a file, a stub or its text), or modifiers as objects.
        module: The attribute of the ``LightningModule`` that has the model. None: the ``LightningModule`` itself.
        recipe_args: Numbers of the recipe to change: ``{"sparsity": 0.9}``.
        teacher: ``"disable"``: leave out what distils.
    """

    def __init__(
        self,
        recipe: RecipeSource,
        module: str | None = None,
        recipe_args: Mapping[str, Any] | None = None,
        teacher: str | None = None,
    ):
        self.recipe, self.module = read_callback_recipe(recipe, recipe_args, teacher, LOOP), module
        self.sparsifier: Sparsifier | None = None
        self.loaded: dict[str, Any] = {}  # the state of the checkpoint to resume from

    def on_train_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        """Attach the recipe. Raises UserError for a training that it does not fit."""
        total, [optimizer, *others] = trainer.estimated_stepping_batches, trainer.optimizers
        if others or type(trainer.strategy).__name__.startswith(SHARDING):
            raise UserError("A recipe trains with one optimizer, and with weights that are whole: DDP, or one device.")
        if not 0 < total < math.inf:
            raise UserError("The recipe has to know how long training is: give Trainer(max_epochs=...) or max_steps.")
        if self.sparsifier is not None:
            raise UserError("The callback has trained a model already: make a new one, for a model loaded anew.")
        model, batches = model_of(pl_module, self.module), trainer.num_training_batches
        check_has_length(self.recipe, batches < math.inf)
        steps = math.ceil(batches / trainer.accumulate_grad_batches) if batches < math.inf else int(total)
        check_enough_epochs(self.recipe, Clock(steps, int(total)), "max_epochs")
        self.sparsifier = Sparsifier(
            self.recipe,
            model,
            optimizer,
            steps_per_epoch=steps,
            epochs=total / steps,
            batches=trainer.train_dataloader if self.recipe.needs_batches else None,
            scaler=GradScaler(enabled=False) if trainer.precision == "16-mixed" else None,  # unscaled by then
        )
        optimizer.register_step_post_hook(lambda *_: self.running.after_update())
        if self.loaded or (trainer.ckpt_path and trainer.global_step):
            self.resume(Path(str(trainer.ckpt_path or "ckpt_path")))

    def resume(self, checkpoint: Path) -> None:
        """Load the state of the recipe in the checkpoint. Raises UserError if there is none, or it does not fit."""
        if not self.loaded:
            raise UserError(
                f"{checkpoint} has no state of a recipe: it was not written with this callback. Load its weights as "
                "the model of a new training."
            )
        check_fits({"sparsifier": self.loaded}, self.running, checkpoint)
        self.running.load_state_dict(self.loaded)
        advice = f"The weights in {checkpoint} are not those that the recipe has pruned: resume from another."
        check_pruned(self.running.modifier_list, self.running.context, advice)

    def on_train_batch_start(
        self, trainer: LightningTrainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Set rates and masks."""
        self.running.begin_step()
        self.running.updating = True  # Lightning has gradients masked inside of optimizer.step()

    def on_before_optimizer_step(
        self, trainer: LightningTrainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Mask gradients: Lightning clips them after this."""
        self.running.before_update()

    def on_train_batch_end(self, trainer: LightningTrainer, pl_module: LightningModule, *args: object) -> None:
        """Log the numbers of the recipe."""
        pl_module.log_dict(numbers_to_log(self.running))

    def on_train_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        """Finish the recipe: the model is plain after it."""
        finalize_or_warn(self.running, "fit(ckpt_path=...)")

    @property
    def running(self) -> Sparsifier:
        """The recipe of the training that runs."""
        assert self.sparsifier is not None
        return self.sparsifier

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the recipe, with its zeros checked."""
        if self.sparsifier is None or self.sparsifier.finalized:
            return {}
        check_zeros(self.sparsifier)
        return self.sparsifier.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of a checkpoint until training begins."""
        self.loaded = state_dict


def model_of(module: LightningModule, name: str | None) -> nn.Module:
    """Return the model in a ``LightningModule``. Raises UserError if there is none of this name."""
    model = getattr(module, name, None) if isinstance(name, str) else module if name is None else None
    if not isinstance(model, nn.Module):
        names = [each for each, _ in module.named_children()]
        raise UserError(
            f"module={name!r}: {type(module).__name__} has no such module. It has {', '.join(names) or 'none'}."
            f"{did_you_mean(str(name), names)}"
        )
    return model
