"""``SparseCallback`` in a ``Trainer`` as it is: the weights of ``SparseTrainer``, exact resuming, what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

from sparse_xp.errors import UserError
from sparse_xp.modifiers import LayerPruning, LearningRate, MagnitudePruning, MovementPruning
from sparse_xp.modifiers.pruning import Pruning
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

RAMP: dict[str, Any] = {"start": "10%", "end": "60%", "update_frequency": "1 steps"}


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
    with pytest.raises(UserError, match=r"from output_dir alone: .*checkpoint-8 has no sparsifier.pt"):
        trainer.train(resume_from_checkpoint=True)


def test_a_checkpoint_that_is_not_in_output_dir() -> None:
    every = {"save_strategy": "steps", "save_steps": 4}
    recipe = prune_and_quantize()
    plain_trainer(recipe, directory="first", **every)[0].train()
    plain_trainer(recipe, directory="second", model=small_bert(5), **every)[0].train()
    with pytest.raises(UserError, match=r"from output_dir alone: there is no trained.checkpoint-4"):
        plain_trainer(recipe, **every)[0].train("first/checkpoint-4")
    with pytest.raises(UserError, match=r"no longer zero.* weights of the model are not those of second.checkpoint-4"):
        plain_trainer(recipe, directory="second")[0].train("first/checkpoint-4")
    other = [MagnitudePruning(final_sparsity=0.5, **RAMP), recipe[1]]
    with pytest.raises(UserError, match=r"first.checkpoint-4 is a checkpoint of another training.* and is 0.5"):
        plain_trainer(other, directory="first")[0].train("first/checkpoint-4")


class Report(TrainerCallback):
    """Keeps what a report would show."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.lines.append(dict(logs))


def test_reports_that_come_after_it_have_its_numbers() -> None:
    report = Report()
    recipe = [LearningRate(init_lr=1e-4, final_lr=1e-4), *prune_and_quantize()]
    trainer = Trainer(
        small_bert(), training_arguments(), train_dataset=token_rows(), callbacks=[SparseCallback(recipe), report]
    )
    trainer.train()
    assert [line["learning_rate"] for line in report.lines[:12]] == [1e-4] * 12
    assert report.lines[11]["sparsity"] == pytest.approx(0.8, abs=0.01)


def test_a_report_of_the_trainer_comes_too_early() -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    trainer, _ = plain_trainer(prune_and_quantize(), report_to=["tensorboard"])
    with pytest.warns(UserWarning, match="a Trainer reports before it calls this callback"):
        trainer.train()


def test_distillation_is_left_out() -> None:
    callback = SparseCallback("gradual80", {"sparsity": 0.5}, teacher="disable")
    Trainer(small_bert(), training_arguments(), train_dataset=token_rows(), callbacks=[callback]).train()
    zeros = sum(int((mask == 0).sum()) for mask in masks(callback)) / sum(mask.numel() for mask in masks(callback))
    assert zeros == pytest.approx(0.5, abs=0.01)


def masks(callback: SparseCallback) -> list[torch.Tensor]:
    assert callback.sparsifier is not None
    pruned = [each for each in callback.sparsifier.modifiers.values() if isinstance(each, Pruning)]
    return [weight for each in pruned for weight in each.targets.values()]


def test_refused() -> None:
    with pytest.raises(UserError, match="a callback cannot change the loss: use SparseTrainer"):
        SparseCallback("gradual80")
    with pytest.raises(UserError, match=r"teacher= of a callback is only 'disable'"):
        SparseCallback("gradual80", teacher="self")
    with pytest.raises(UserError, match=r"recipe_args='sparsity=0.9': expected numbers by name"):
        SparseCallback("gradual80", "sparsity=0.9")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="called after the optimizer is made: use SparseTrainer"):
        SparseCallback([LayerPruning(layers=["bert.encoder.layer.1"])])
    trainer, _ = plain_trainer(prune_and_quantize(), auto_find_batch_size=True)
    with pytest.raises(UserError, match="auto_find_batch_size=True and a recipe in a callback"):
        trainer.train()
    trainer, _ = plain_trainer(prune_and_quantize(), save_only_model=True, save_strategy="epoch")
    with pytest.warns(UserWarning, match="checkpoints have no optimizer"):
        trainer.train()
    with pytest.raises(UserError, match="has trained a model already"):
        trainer.train()


def test_half_precision() -> None:
    trainer, callback = plain_trainer(prune_and_quantize(), fp16=True)
    trainer.train()
    assert callback.sparsifier is not None
    assert callback.sparsifier.finalized
