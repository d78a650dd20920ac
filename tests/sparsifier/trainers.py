"""What the tests of Trainers share: a small BERT with dropout, rows of tokens, a recipe, a stop in the middle."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback, TrainingArguments

from sparse_xp.modifiers import MagnitudePruning, Modifier, Quantization
from sparse_xp.sparsifier.hugging_face import SparseTrainer

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}


def small_bert(seed: int = 0, dropout: float = 0.1) -> BertForSequenceClassification:
    """Two layers, 16 wide. Evaluations and resumed runs have to get dropout right."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        BertConfig(**SIZES, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    )


def token_rows(count: int = 48) -> list[dict[str, Any]]:
    """Rows of eight tokens, whose class is whether the first is large."""
    draw = torch.Generator().manual_seed(1)
    rows = [torch.randint(5, 40, (8,), generator=draw) for _ in range(count)]
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": int(row[0] > 22)} for row in rows]


def prune_and_quantize() -> list[Modifier]:
    """A ramp from 10 % to 60 %, and 8 bits from 70 % on."""
    return [
        MagnitudePruning(final_sparsity=0.8, start="10%", end="60%", update_frequency="1 steps"),
        Quantization(start="70%"),
    ]


def training_arguments(directory: Path | str = "trained", **more: Any) -> TrainingArguments:
    """Twelve steps in two epochs, with a clipping that acts."""
    settings: dict[str, Any] = {
        "output_dir": str(directory), "per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 1e-3,
        "max_grad_norm": 0.05, "logging_steps": 1, "save_strategy": "no", "report_to": [], "use_cpu": True,
        "disable_tqdm": True, "seed": 3,
    }  # fmt: skip
    return TrainingArguments(**settings | more)


def trained(recipe: Any, model: Any = None, kind: Any = SparseTrainer, more: Any = None, **keywords: Any) -> Any:
    """Return a trainer that has trained. ``more``: of the training arguments."""
    trainer = kind(
        small_bert() if model is None else model,
        training_arguments(**more or {}),
        recipe=recipe,
        **{"train_dataset": token_rows(), **keywords},
    )
    trainer.train()
    return trainer


@pytest.fixture(autouse=True)
def _quick_collection() -> Iterator[None]:
    """A Trainer collects garbage before it trains: the objects of other tests need not be looked at."""
    gc.freeze()
    yield
    gc.unfreeze()


class StopAt(TrainerCallback):
    """Saves and stops after a number of steps."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_save = control.should_training_stop = state.global_step == self.step
        return control


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal_weights(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
