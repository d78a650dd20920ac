"""``LightningCallback``: the weights of a plain loop, resuming, what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from sparse_xp.errors import UserError
from sparse_xp.modifiers import LearningRate, MovementPruning
from sparse_xp.sparsifier.sparsifier import Sparsifier
from tests.sparsifier.trainers import assert_equal_weights, prune_and_quantize, small_bert, token_rows

pytest.importorskip("lightning", reason="the extra lightning is not installed")

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from sparse_xp.sparsifier.lightning import LightningCallback


def optimizer_of(model: Any) -> tuple[Any, Any]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 12)


class Classifier(pl.LightningModule):
    """A BERT in a LightningModule."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.model = small_bert(seed, dropout=0)

    def training_step(self, batch: Any, index: int) -> Any:
        return self.model(**batch).loss

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = optimizer_of(self)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def loader() -> DataLoader[Any]:
    return DataLoader(token_rows(), batch_size=8)  # type: ignore[arg-type]


def fit(recipe: Any, *others: Any, seed: int = 0, resume: str | None = None, **more: Any) -> tuple[Any, Any]:
    """Return the module and the callback after twelve steps, unless ``more`` says otherwise."""
    callback, module = LightningCallback(recipe, module="model"), Classifier(seed)
    train_with(callback, module, *others, resume=resume, **more)
    return module, callback


def train_with(callback: LightningCallback, module: Any, *others: Any, resume: str | None = None, **more: Any) -> None:
    settings: dict[str, Any] = {
        "max_epochs": 2, "gradient_clip_val": 0.05, "accelerator": "cpu", "logger": False,
        "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": bool(others),
    }  # fmt: skip
    pl.Trainer(callbacks=[callback, *others], **settings | more).fit(module, loader(), ckpt_path=resume)


RECIPES = {
    "magnitude, 8 bits": prune_and_quantize(),
    "movement": [MovementPruning(final_sparsity=0.5, start="10%", end="60%", update_frequency="1 steps")],
    "rate of the recipe": [LearningRate(init_lr=1e-3, final_lr=1e-4), *prune_and_quantize()],
}


@pytest.mark.parametrize("name", RECIPES)
def test_weights_are_those_of_a_plain_loop(name: str) -> None:
    module, callback = fit(copy.deepcopy(RECIPES[name]))
    model = small_bert(dropout=0)
    optimizer, scheduler = optimizer_of(model)
    sparsifier = Sparsifier(RECIPES[name], model, optimizer, steps_per_epoch=6, epochs=2, max_grad_norm=0.05)
    model.train()
    for _ in range(2):
        for batch in loader():
            outputs = model(**batch)
            sparsifier.loss(outputs.loss, outputs, batch).backward()
            sparsifier.step()
            scheduler.step()
    sparsifier.finalize()
    assert callback.sparsifier.finalized
    assert_equal_weights(module.model, model)


@pytest.mark.parametrize("name", ["movement", "magnitude, 8 bits"])
def test_a_resumed_training_is_exact(name: str) -> None:
    whole, _ = fit(RECIPES[name])
    keep = ModelCheckpoint(dirpath="kept", filename="{step}", every_n_epochs=1, save_top_k=-1)
    fit(RECIPES[name], keep)
    resumed, callback = fit(RECIPES[name], seed=7, resume="kept/step=6.ckpt")
    assert callback.sparsifier.finalized
    assert_equal_weights(whole.model, resumed.model)


def test_a_checkpoint_must_have_the_state_of_this_recipe() -> None:
    fit(RECIPES["movement"], ModelCheckpoint(dirpath="kept", filename="{step}", every_n_epochs=1, save_top_k=-1))
    with pytest.raises(UserError, match=r"step=6.ckpt is a checkpoint of another training"):
        fit(RECIPES["magnitude, 8 bits"], resume="kept/step=6.ckpt")
    content = torch.load("kept/step=6.ckpt", weights_only=True)
    content["callbacks"] = {}
    torch.save(content, "kept/plain.ckpt")
    with pytest.raises(UserError, match=r"plain.ckpt has no state of a recipe"):
        fit(RECIPES["movement"], resume="kept/plain.ckpt")


def test_micro_batches() -> None:
    _, callback = fit(prune_and_quantize(), accumulate_grad_batches=2)
    assert callback.sparsifier.steps == 6


def test_a_training_that_is_stopped_early_stays_unfinished() -> None:
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            trainer.should_stop = trainer.global_step >= 4

    with pytest.warns(UserWarning, match="stopped after step 4 of 12"):
        _, callback = fit(prune_and_quantize(), Stop())
    assert not callback.sparsifier.finalized


def test_refused() -> None:
    with pytest.raises(UserError, match=r"distils .* use Sparsifier"):
        LightningCallback("gradual80")
    with pytest.raises(UserError, match="teacher= of a callback is only 'disable'"):
        LightningCallback("gradual80", teacher="self")
    with pytest.raises(UserError, match=r"module='modle': Classifier has no such module. .*Did you mean 'model'"):
        train_with(LightningCallback(prune_and_quantize(), module="modle"), Classifier())
    with pytest.raises(UserError, match="recipe_args=3: expected numbers by name"):
        LightningCallback("gradual80", recipe_args=3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has to know how long training is"):
        fit(prune_and_quantize(), max_epochs=-1)
