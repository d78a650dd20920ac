"""The recipe in the Trainers of sentence-transformers, with a teacher that sees what the model sees."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, BertModel

from sparse_xp.errors import UserError
from sparse_xp.modifiers import Distillation, EmbeddingPruning, PerLayerDistillation, Quantization
from sparse_xp.sparsifier.hugging_face import SparseTrainerMixin
from sparse_xp.sparsifier.trainer_callback import SparseCallback
from tests.sparsifier.trainers import (
    StopAt,
    _quick_collection,  # noqa: F401
    assert_equal_weights,
    prune_and_quantize,
)
from tests.tiny import WORDS, make_tokenizer

pytest.importorskip("sentence_transformers", reason="the extra sentence-transformers is not installed")

from sentence_transformers import (
    CrossEncoder,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer


class EmbeddingTrainer(SparseTrainerMixin, SentenceTransformerTrainer):
    """A SentenceTransformer."""

    arguments, model_kind = SentenceTransformerTrainingArguments, BertModel


class RerankingTrainer(SparseTrainerMixin, CrossEncoderTrainer):
    """A CrossEncoder."""

    arguments, model_kind = CrossEncoderTrainingArguments, BertForSequenceClassification


def make_model(kind: Any, seed: int = 0) -> Any:
    """A model of two layers from a directory, without the hub."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=1,
    )  # fmt: skip
    directory = f"{kind.__name__}-{seed}"
    kind.model_kind(config).save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    if kind is RerankingTrainer:
        return CrossEncoder(directory, num_labels=1, device="cpu")
    return SentenceTransformer(modules=[Transformer(directory), Pooling(16)], device="cpu")


def make_pairs(scored: bool) -> Dataset:
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS[5:], k=draw.randint(2, 6))) for _ in range(64)]
    columns = {"anchor": texts[:32], "positive": texts[32:]}
    return Dataset.from_dict(columns | ({"label": [float(i % 2) for i in range(32)]} if scored else {}))


def make_trainer(kind: Any, recipe: Any, model: Any = None, loss: Any = None, **keywords: Any) -> Any:
    """Eight steps in two epochs."""
    model = model or make_model(kind)
    if kind is EmbeddingTrainer:
        keywords["loss"] = (loss or losses.MultipleNegativesRankingLoss)(model)
    arguments = kind.arguments(
        output_dir="trained", per_device_train_batch_size=8, num_train_epochs=2, learning_rate=1e-3, logging_steps=1,
        save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, seed=3,
    )  # fmt: skip
    return kind(model, arguments, train_dataset=make_pairs(kind is RerankingTrainer), recipe=recipe, **keywords)


@pytest.mark.parametrize("kind", [EmbeddingTrainer, RerankingTrainer])
def test_training_and_resuming_with_a_teacher(kind: Any) -> None:
    recipe, teacher = [*prune_and_quantize(), Distillation()], make_model(kind, 4)
    whole = make_trainer(kind, recipe, teacher=teacher)
    whole.train()
    lines = [line for line in whole.state.log_history if "loss" in line]
    assert lines[0]["loss_distillation"] > 0
    assert lines[-1]["sparsity"] == pytest.approx(0.8, abs=0.01)
    with warnings.catch_warnings(action="ignore"):
        make_trainer(kind, recipe, teacher=teacher, callbacks=[StopAt(3)]).train()
    resumed = make_trainer(kind, recipe, make_model(kind, 7), teacher=teacher)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(whole.model, resumed.model)
    whole.save_model("saved")
    assert {"quantization.json", "recipe.yaml"} <= {each.name for each in Path("saved").iterdir()}
    again: Any = type(whole.model)("saved", device="cpu")
    assert_equal_weights(again, whole.model)


def test_a_teacher_that_is_the_model_has_nothing_to_add() -> None:
    recipe = [Distillation(hardness=1.0)]
    model = make_model(EmbeddingTrainer)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    trainer = make_trainer(EmbeddingTrainer, recipe, model, teacher="self")
    trainer.train()
    assert trainer.state.log_history[0]["loss_distillation"] == pytest.approx(0, abs=1e-8)
    assert trainer.state.log_history[0]["loss_task"] > 0


def test_a_distillation_loss_of_ones_own_gets_all_texts() -> None:
    shapes: list[Any] = []

    def distance(student: Any, teacher: Any, batch: Any) -> torch.Tensor:
        shapes.append((student["sentence_embedding"].shape, len(batch)))
        return (student["sentence_embedding"] - teacher["sentence_embedding"]).abs().mean()

    trainer = make_trainer(EmbeddingTrainer, [Distillation()], teacher="self", distillation=distance)
    trainer.train()
    assert shapes[0] == ((16, 16), 2)  # eight anchors and eight positives, in two forward passes


def test_embeddings_and_scores_after_it() -> None:
    trainer = make_trainer(EmbeddingTrainer, prune_and_quantize())
    trainer.train()
    assert trainer.model.encode(["the dog sat"]).shape == (1, 16)
    reranking = make_trainer(RerankingTrainer, prune_and_quantize())
    reranking.train()
    assert reranking.model.predict([("the dog", "a cat")]).shape == (1,)


def test_a_callback_saves_what_loads_again() -> None:
    model, callback = make_model(EmbeddingTrainer), SparseCallback(prune_and_quantize())
    arguments = SentenceTransformerTrainingArguments(
        output_dir="trained", per_device_train_batch_size=8, save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    SentenceTransformerTrainer(
        model, arguments, train_dataset=make_pairs(False), loss=losses.MultipleNegativesRankingLoss(model),
        callbacks=[callback],
    ).train()  # fmt: skip
    callback.sparsifier.save("saved")  # type: ignore[union-attr]
    assert {"modules.json", "quantization.json", "recipe.yaml"} <= {each.name for each in Path("saved").iterdir()}
    again: Any = SentenceTransformer("saved", device="cpu")
    assert_equal_weights(again, model)


def test_a_teacher_with_embeddings_of_another_size() -> None:
    def teacher(batch: Any) -> Any:
        return {"sentence_embedding": torch.zeros(16, 4)}

    with pytest.raises(UserError, match="have to give embeddings of the same size"):
        make_trainer(EmbeddingTrainer, [Distillation()], teacher=teacher).train()


#: recipe, keywords, loss, and the words of the refusal
REFUSED: dict[str, tuple[Any, dict[str, Any], Any, str]] = {
    "hidden layers": ([PerLayerDistillation()], {"teacher": "self"}, None, "with Distillation"),
    "calibration": ([Quantization(calibration_rows=8)], {}, None, "Quantize during training"),
    "dimensions": ([EmbeddingPruning(final_sparsity=0.5, multiple=4)], {}, None, "which module is its table"),
    "embeddings of several sizes": (
        [Distillation()], {"teacher": "self"},
        lambda model: losses.MatryoshkaLoss(model, losses.MultipleNegativesRankingLoss(model), [16, 8]),
        "sentence_embedding: 16, 8",
    ),
    "cached gradients": (
        [Distillation()], {"teacher": "self"}, losses.CachedMultipleNegativesRankingLoss, "losses that cache gradients"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    recipe, keywords, loss, words = REFUSED[case]
    with pytest.raises(UserError, match=words):
        make_trainer(EmbeddingTrainer, recipe, loss=loss, **keywords).train()
