"""``SparseCallback`` in a ``Trainer`` as it is: the weights of ``SparseTrainer``, exact resuming, what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from sparse_xp.errors import UserError
from sparse_xp.modifiers import LayerPruning, MovementPruning
from sparse_xp.sparsifier.trainer_callback import SparseCallback
from tests.sparsifier.trainers import (
    StopAt,
    _quick_collection,  # noqa: F401
    assert_equal_weights,
    prune_and_quantize,
    small_bert,
    token_rows,
    trained,
    training_arguments,
)


def plain_trainer(recipe: Any, *callbacks: Any, model: Any = None, **more: Any) -> tuple[Trainer, SparseCallback]:
    callback = SparseCallback(recipe)
    model = small_bert() if model is None else model
    arguments = training_arguments(**more)
    return Trainer(model, arguments, train_dataset=token_rows(), callbacks=[*callbacks, callback]), callback


def test_its_weights_are_those_of_the_sparse_trainer() -> None:
    trainer, callback = plain_trainer(prune_and_quantize())
    trainer.train()
    sparse = trained(prune_and_quantize())
    assert_equal_weights(trainer.model, sparse.model)
    for name in ("loss", "grad_norm", "sparsity", "quantized", "learning_rate"):  # masked before clipping, too
        ours, theirs = ([line[name] for line in log if "loss" in line] for log in logs(trainer, sparse))
        assert ours == theirs
    callback.sparsifier.save("model")
    assert {"model.safetensors", "quantization.json", "recipe.yaml"} <= {each.name for each in Path("model").iterdir()}
    # No hook is left that would hold zeros.
    trainer.model(**{name: torch.as_tensor(value)[None] for name, value in token_rows(1)[0].items()}).loss.backward()
    assert (trainer.model.bert.encoder.layer[0].attention.self.query.weight.grad == 0).float().mean() < 0.2


def logs(*trainers: Any) -> list[Any]:
    return [trainer.state.log_history for trainer in trainers]


@pytest.mark.parametrize("step", [4, 10])
def test_a_resumed_training_is_exact(step: int) -> None:
    recipe = prune_and_quantize() if step == 10 else [MovementPruning(final_sparsity=0.5, start="10%", end="60%")]
    whole, _ = plain_trainer(recipe)
    whole.train()
    stopped, callback = plain_trainer(recipe, StopAt(step))
    if step == 4:
        with pytest.warns(UserWarning, match="stopped after step 4 of 12"):
            stopped.train()
        assert not callback.sparsifier.finalized
    else:
        stopped.train()
    resumed, _ = plain_trainer(recipe, model=small_bert(7))
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(whole.model, resumed.model)


def test_a_checkpoint_without_its_state() -> None:
    Trainer(small_bert(), training_arguments(save_strategy="steps", save_steps=4), train_dataset=token_rows()).train()
    shutil.rmtree("trained/checkpoint-12")
    trainer, _ = plain_trainer(prune_and_quantize())
    with pytest.raises(UserError, match=r"checkpoint-8 has no sparsifier.pt"):
        trainer.train(resume_from_checkpoint=True)


def test_refused() -> None:
    with pytest.raises(UserError, match="a callback cannot change the loss: use SparseTrainer"):
        SparseCallback("gradual80")
    with pytest.raises(UserError, match=r"LayerPruning changes modules .* use SparseTrainer"):
        SparseCallback([LayerPruning(layers=["bert.encoder.layer.1"])])
    trainer, _ = plain_trainer(prune_and_quantize(), auto_find_batch_size=True)
    with pytest.raises(UserError, match="auto_find_batch_size=True and a recipe in a callback"):
        trainer.train()
    trainer, _ = plain_trainer(prune_and_quantize())
    trainer.train()
    with pytest.raises(UserError, match="has trained a model already"):
        trainer.train()
