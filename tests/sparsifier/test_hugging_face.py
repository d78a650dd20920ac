"""``SparseTrainer``: the weights of a plain loop, exact resuming, the best model, and errors in words."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset
from transformers import BertForSequenceClassification, Trainer, TrainerCallback, get_linear_schedule_with_warmup

from sparse_xp.errors import UserError
from sparse_xp.modifiers import (
    AttentionDistillation,
    Distillation,
    EmbeddingPruning,
    LayerPruning,
    LearningRate,
    MagnitudePruning,
    MovementPruning,
    OBSPruning,
    PerLayerDistillation,
    Quantization,
    StructuredPruning,
)
from sparse_xp.sparsifier.hugging_face import SparseTrainer, SparseTrainerMixin
from sparse_xp.sparsifier.sparsifier import Sparsifier
from tests.sparsifier.trainers import (
    StopAt,
    _quick_collection,  # noqa: F401
    assert_equal_weights,
    prune_and_quantize,
    small_bert,
    token_rows,
    trained,
    training_arguments,
    weights,
)

LONG = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}
  - !GMPruningModifier
      {params: __ALL_PRUNABLE__, init_sparsity: 0.05, final_sparsity: 0.8, start_epoch: 0, end_epoch: 2,
       update_frequency: 0.2}
"""
RAMP: dict[str, Any] = {"start": "10%", "end": "60%", "update_frequency": "1 steps"}
LAYERS: dict[str, Any] = {
    "student_layer_names": ["bert.encoder.layer.0"],
    "teacher_layer_names": ["bert.encoder.layer.1"],
}


class Rows(IterableDataset):
    """Rows without a length."""

    def __iter__(self) -> Any:
        return iter(token_rows())


@pytest.mark.parametrize("teacher", [None, small_bert(5, dropout=0)], ids=["alone", "with a teacher"])
def test_weights_are_those_of_a_plain_loop(teacher: Any) -> None:
    recipe = [*prune_and_quantize(), *([Distillation()] if teacher else [])]
    in_order = {"train_sampling_strategy": "sequential"}
    trainer = trained(recipe, small_bert(dropout=0), teacher=teacher, more=in_order)

    model = small_bert(dropout=0)
    decaying = trainer.get_decay_parameter_names(model)
    groups = [
        {"params": [weight for name, weight in model.named_parameters() if (name in decaying) == decays]}
        for decays in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.0, fused=True)  # as the Trainer makes it
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, 12)
    loader = DataLoader(token_rows(), batch_size=8)  # type: ignore[arg-type]
    sparsifier = Sparsifier(
        recipe, model, optimizer, steps_per_epoch=len(loader), epochs=2, teacher=teacher, max_grad_norm=0.05
    )
    model.train()
    for _ in range(2):
        for batch in loader:
            outputs = model(**batch)
            sparsifier.loss(outputs.loss, outputs, batch).backward()
            sparsifier.step()
            scheduler.step()
    sparsifier.finalize()
    assert_equal_weights(trainer.model, model)
    assert trainer.model.bert.encoder.layer[0].attention.self.query.weight.count_nonzero() < 60  # of 256


def summed(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
    return cross_entropy(outputs["logits"], labels, reduction="sum") / num_items_in_batch


@pytest.mark.parametrize("loss", [None, summed], ids=["mean of a micro-batch", "divided by all items"])
def test_micro_batches_make_one_large_batch(loss: Any) -> None:
    recipe, more = [prune_and_quantize()[0], Distillation()], {"train_sampling_strategy": "sequential"}
    keywords: dict[str, Any] = {"teacher": small_bert(5), "compute_loss_func": loss}
    one = trained(recipe, small_bert(dropout=0), more=more, **keywords)
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    four = trained(recipe, small_bert(dropout=0), more=more | parts, **keywords)
    ours, theirs = weights(one.model), weights(four.model)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)
    for name in ("loss", "grad_norm"):
        assert four.state.log_history[0][name] == pytest.approx(one.state.log_history[0][name], rel=1e-4)


def structured(**more: Any) -> StructuredPruning:
    return StructuredPruning(final_sparsity=0.5, multiple=2, **RAMP, **more)


#: recipe, step of the stop, training arguments
STOPS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "in the ramp, with a teacher": ([*prune_and_quantize(), Distillation()], 4, {}),
    "between epochs, rate of the recipe": (
        [LearningRate(init_lr=1e-3, final_lr=1e-4), *prune_and_quantize()], 6, {}
    ),
    "in 8 bits, micro-batches": (prune_and_quantize(), 5, {"gradient_accumulation_steps": 2}),
    "heads, layers and embeddings": (
        [structured(layers=True, global_sparsity=True), EmbeddingPruning(final_sparsity=0.5, multiple=4)], 4, {}
    ),
    "movement, a removed layer": (
        [LayerPruning(layers=["bert.encoder.layer.1"]), MovementPruning(final_sparsity=0.5, **RAMP)], 4, {}
    ),
    "second order": ([OBSPruning(final_sparsity=0.5, num_grads=4, **RAMP)], 4, {}),
    "repair": ([structured(score="obs", global_sparsity=True)], 4, {}),
    "inside of the model": ([PerLayerDistillation(**LAYERS), AttentionDistillation()], 4, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", STOPS)
def test_a_resumed_training_is_exact(case: str) -> None:
    recipe, step, more = STOPS[case]
    distils = any(isinstance(each, Distillation | PerLayerDistillation | AttentionDistillation) for each in recipe)
    teacher = small_bert(9) if distils else None
    whole = trained(recipe, teacher=teacher, more=more)
    keywords: dict[str, Any] = {"recipe": recipe, "teacher": teacher, "train_dataset": token_rows()}
    stopped = SparseTrainer(small_bert(), training_arguments(**more), callbacks=[StopAt(step)], **keywords)
    with warnings.catch_warnings(action="ignore"):  # the recipe is unfinished, or not
        stopped.train()
    resumed = SparseTrainer(small_bert(7), training_arguments(**more), **keywords)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(whole.model, resumed.model)
    assert resumed.sparsifier.finalized


def test_a_training_that_is_stopped_early_stays_unfinished() -> None:
    stopped = SparseTrainer(
        small_bert(), training_arguments(), recipe=prune_and_quantize(), train_dataset=token_rows(),
        callbacks=[StopAt(4)],
    )  # fmt: skip
    with pytest.warns(UserWarning, match="stopped after step 4 of 12, before the recipe has reached its targets"):
        stopped.train()
    assert not stopped.sparsifier.finalized
    with pytest.raises(UserError, match=r"An earlier train.. was interrupted"):
        stopped.train()
    stopped.sparsifier.finalize(unfinished=True)
    assert stopped.evaluate(token_rows(8))["eval_loss"] > 0


def test_an_interrupted_trainer_goes_on_itself() -> None:
    class Interrupt(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 6 and not Path("trained/seen").exists():
                Path("trained/seen").touch()
                raise KeyboardInterrupt

    more = {"save_strategy": "steps", "save_steps": 4}
    trainer = SparseTrainer(
        small_bert(), training_arguments(**more), recipe=prune_and_quantize(), train_dataset=token_rows(),
        callbacks=[Interrupt()],
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train(resume_from_checkpoint=True)
    assert_equal_weights(trainer.model, trained(prune_and_quantize()).model)


def test_the_best_model_is_one_that_has_reached_the_targets() -> None:
    # The ramp ends in step 8 (of 1 to 12): the scores before it do not count.
    scores = iter([0.1, 0.9, 0.2, 0.3, 0.8, 0.1, 0.2, 0.3, 0.5, 0.6, 0.4, 0.3])
    every = {
        "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2,
        "load_best_model_at_end": True, "metric_for_best_model": "score",
    }  # fmt: skip
    trainer = trained(
        prune_and_quantize()[:1], more=every, eval_dataset=token_rows(8),
        compute_metrics=lambda _: {"score": next(scores)},
    )  # fmt: skip
    assert (trainer.state.best_global_step, trainer.state.best_metric) == (10, 0.6)
    assert {path.name for path in Path("trained").glob("checkpoint-*")} == {"checkpoint-10", "checkpoint-12"}
    best = load_file("trained/checkpoint-10/model.safetensors")
    last = load_file("trained/checkpoint-12/model.safetensors")
    name = "classifier.weight"
    assert torch.equal(trainer.model.classifier.weight, best[name])
    assert not torch.equal(best[name], last[name])
    assert trainer.sparsifier.finalized


def test_saved_models_are_plain_and_have_their_recipe() -> None:
    trainer = trained(prune_and_quantize())
    trainer.save_model("model")
    names = {path.name for path in Path("model").iterdir()}
    assert {"config.json", "model.safetensors", "quantization.json", "recipe.yaml"} <= names
    assert "sparsifier.pt" not in names
    stock = BertForSequenceClassification.from_pretrained("model")
    assert torch.equal(stock.classifier.weight, trainer.model.classifier.weight)
    assert "Pruning" in Path("model/recipe.yaml").read_text()
    with torch.no_grad():
        trainer.model.bert.encoder.layer[0].attention.self.query.weight.fill_(1.0)
    with pytest.raises(UserError, match=r"not saved: .* pruned weights of .*query.weight are no longer zero"):
        trainer.save_model("model")


def test_a_checkpoint_says_nothing_of_what_is_to_come() -> None:
    trained(prune_and_quantize(), more={"save_strategy": "steps", "save_steps": 4})
    before, after = Path("trained/checkpoint-4"), Path("trained/checkpoint-12")
    assert "Quantization" not in (before / "recipe.yaml").read_text()
    assert not (before / "quantization.json").exists()
    assert "Quantization" in (after / "recipe.yaml").read_text()
    assert json.loads((after / "quantization.json").read_text())["modules"]
    zeros = load_file(before / "model.safetensors")["bert.encoder.layer.0.attention.self.query.weight"] == 0
    assert 0.2 < zeros.float().mean() < 0.8


def test_logs_have_the_numbers_of_the_recipe() -> None:
    recipe = [LearningRate(start="50%", init_lr=5e-4, final_lr=1e-4), *prune_and_quantize(), Distillation()]
    trainer = trained(recipe, teacher="self")
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 12
    assert {"sparsity", "quantized", "loss_task", "loss_distillation"} <= set(lines[0])
    assert lines[-1]["sparsity"] == pytest.approx(0.8, abs=0.01)
    assert [line["quantized"] for line in lines[7:9]] == [0, 8]
    # The Trainer's linear schedule, then the recipe's: the rate with which the step was made.
    rates = [line["learning_rate"] for line in lines]
    assert rates[:2] == pytest.approx([1e-3, 1e-3 * 11 / 12])
    assert rates[6] == pytest.approx(5e-4)
    assert rates[7] == pytest.approx(5e-4 - 4e-4 / 6)


class OwnLoss(SparseTrainer):
    """A subclass that computes the loss itself."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        loss = cross_entropy(outputs.logits, inputs["labels"])
        return (loss, outputs) if return_outputs else loss


class OwnTrainer(Trainer):
    """A trainer of the user's."""

    compute_loss = OwnLoss.compute_loss


class Mixed(SparseTrainerMixin, OwnTrainer):
    """The recipe in it."""


@pytest.mark.parametrize("kind", [OwnLoss, Mixed])
def test_a_loss_of_ones_own_is_distilled_too(kind: Any) -> None:
    recipe, teacher = [*prune_and_quantize(), Distillation()], small_bert(5)
    own = trained(recipe, kind=kind, teacher=teacher)
    assert_equal_weights(own.model, trained(recipe, teacher=teacher).model)


def test_a_distillation_loss_of_ones_own_sees_the_batch() -> None:
    seen: list[Any] = []

    def distance(student: Any, teacher: Any, batch: Any) -> torch.Tensor:
        seen.append(set(batch))
        return (student["logits"] - teacher["logits"]).square().mean()

    def teacher(batch: Any) -> Any:
        return {"logits": torch.zeros(len(batch["input_ids"]), 2)}

    more = {"label_smoothing_factor": 0.1}
    trainer = trained([Distillation()], teacher=teacher, distillation=distance, more=more)
    assert {"input_ids", "attention_mask", "labels"} <= seen[0]
    assert trainer.state.log_history[0]["loss_distillation"] > 0


def test_gradient_checkpointing_observes_each_activation_once() -> None:
    again = trained(prune_and_quantize(), more={"gradient_checkpointing": True})
    assert_equal_weights(again.model, trained(prune_and_quantize()).model)


@pytest.mark.parametrize("more", [{"bf16": True}, {"max_grad_norm": 0.0}, {"num_train_epochs": 1.5}, {"max_steps": 7}])
def test_other_settings_of_the_trainer(more: dict[str, Any]) -> None:
    trainer = trained([*prune_and_quantize(), Distillation()], teacher="self", more=more)
    assert trainer.sparsifier.steps == trainer.sparsifier.total_steps == trainer.state.global_step
    query = trainer.model.bert.encoder.layer[0].attention.self.query.weight
    assert query.dtype == torch.float32
    assert (query == 0).float().mean() > 0.6


def test_data_without_a_length() -> None:
    trainer = trained(prune_and_quantize(), train_dataset=Rows(), more={"max_steps": 10})
    assert trainer.sparsifier.finalized
    with pytest.raises(UserError, match="counts in epochs, and the training data has no length"):
        trained(LONG, train_dataset=Rows(), more={"max_steps": 10})
    in_epochs = [MagnitudePruning(final_sparsity=0.8, start=0, end=2, update_frequency="0.5 epochs")]
    with pytest.raises(UserError, match=r"MagnitudePruning counts in epochs \(end=2, update_frequency=0.5 epochs\)"):
        trained(in_epochs, train_dataset=Rows(), more={"max_steps": 10})


def test_a_recipe_is_as_long_as_the_training() -> None:
    with pytest.raises(UserError, match=r"recipe has 3 epochs, and training has 2: .* Set num_train_epochs=3"):
        trained(LONG)
    assert trained(LONG, more={"num_train_epochs": 3}).sparsifier.total_steps == 18


def test_numbers_of_a_named_recipe() -> None:
    trainer = trained("gradual80", recipe_args={"sparsity": 0.5}, teacher="disable")
    assert trainer.state.log_history[-2]["sparsity"] == pytest.approx(0.5, abs=0.01)


def test_calibration_after_training() -> None:
    trainer = trained([prune_and_quantize()[0], Quantization(calibration_rows=16)])
    trainer.save_model("model")
    entries = json.loads(Path("model/quantization.json").read_text())["modules"]
    assert len(entries["bert.encoder.layer.0.attention.self.query"]["inputs"]) == 2


def test_a_trainer_trains_once_unless_it_makes_its_model() -> None:
    trainer = trained(prune_and_quantize())
    with pytest.raises(UserError, match="has finished the recipe already"):
        trainer.train()
    making = SparseTrainer(
        args=training_arguments(), model_init=lambda: small_bert(), recipe=prune_and_quantize(),
        train_dataset=token_rows(),
    )  # fmt: skip
    making.train()
    first = small_bert()
    first.load_state_dict(weights(making.model))
    making.train()
    assert_equal_weights(making.model, first)


#: recipe, keywords and training arguments that are refused, and the words
REFUSED: dict[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "nothing": (None, {}, {}, "recipe= is missing"),
    "an unknown recipe": ("gradul80", {}, {}, "Did you mean 'gradual80'"),
    "no teacher": ("gradual80", {}, {}, "gradual80 distils .* no teacher is given"),
    "a teacher for nothing": (prune_and_quantize(), {"teacher": "self"}, {}, "does not distil"),
    "batches by trial": (prune_and_quantize(), {}, {"auto_find_batch_size": True}, "auto_find_batch_size"),
    "updates in backward": (
        prune_and_quantize(),
        {},
        {"optim": "lomo"},
        "^optim=lomo .*before gradients can be masked",
    ),
    "no numbers by name": ("gradual80", {"recipe_args": 0.5}, {}, "recipe_args=0.5: expected numbers by name"),
    "numbers without names": ("gradual80", {"recipe_args": {1: 2}}, {}, "1 is no name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    recipe, keywords, more, words = REFUSED[case]
    with pytest.raises(UserError, match=words):
        SparseTrainer(small_bert(), training_arguments(**more), recipe=recipe, train_dataset=token_rows(), **keywords)


def test_the_place_of_the_mixin() -> None:
    with pytest.raises(UserError, match=r"SparseTrainerMixin has to come before OwnTrainer"):
        type("Wrong", (OwnTrainer, SparseTrainerMixin), {})
    with pytest.raises(UserError, match="SparseTrainerMixin is no Trainer"):
        SparseTrainerMixin(small_bert(), training_arguments(), recipe=prune_and_quantize())


def test_checkpoints_without_an_optimizer_are_not_resumed_exactly() -> None:
    more = {"save_only_model": True, "save_strategy": "steps"}
    keywords: dict[str, Any] = {"recipe": prune_and_quantize(), "train_dataset": token_rows()}
    with pytest.warns(UserWarning, match="save_only_model=True: checkpoints have no optimizer"):
        SparseTrainer(small_bert(), training_arguments(**more), **keywords)


def test_a_scheduler_that_does_not_know_the_projections() -> None:
    model = small_bert()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    recipe = [PerLayerDistillation(**LAYERS)]
    with pytest.raises(UserError, match="does not know their group"):
        trained(recipe, model, teacher=small_bert(3), optimizers=(optimizer, scheduler))


def test_a_checkpoint_must_be_of_this_training() -> None:
    recipe, more = [*prune_and_quantize(), Distillation()], {"save_strategy": "steps", "save_steps": 4}
    trained(recipe, teacher="self", more=more)

    def resume(checkpoint: str, recipe: Any = recipe, seed: int = 0, teacher: Any = "self", **more: Any) -> None:
        keywords: dict[str, Any] = {"recipe": recipe, "teacher": teacher, "train_dataset": token_rows()}
        SparseTrainer(small_bert(seed), training_arguments(**more), **keywords).train(checkpoint)

    with pytest.raises(UserError, match="12 steps, 6 an epoch; this one has 18"):
        resume("trained/checkpoint-4", num_train_epochs=3)
    with pytest.raises(UserError, match="The teacher is not the one"):
        resume("trained/checkpoint-4", seed=7)
    with pytest.raises(UserError, match="this one has 12 steps with Distillation, MagnitudePruning"):
        resume("trained/checkpoint-4", recipe=[prune_and_quantize()[0], Distillation()])
    other = [MagnitudePruning(final_sparsity=0.7, **RAMP), *recipe[1:]]
    with pytest.raises(UserError, match=r"another training.* MagnitudePruning final_sparsity was 0.8") as refusal:
        resume("trained/checkpoint-4", recipe=other, seed=7)  # another teacher as well
    assert "Sparsifier" not in str(refusal.value)
    shutil.copytree("trained/checkpoint-4", "plain")
    Path("plain/sparsifier.pt").unlink()
    with pytest.raises(UserError, match=r"plain has no sparsifier.pt"):
        resume("plain")
    Path("trained/checkpoint-4/sparsifier.pt").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"sparsifier.pt is damaged. Resume from an earlier checkpoint"):
        resume("trained/checkpoint-4")
