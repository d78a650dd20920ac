"""The distance of a file to the model: real logits alone count, over batches of several shapes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from sparse_xp.deployment.distance import measure_distance

LENGTHS = [1, 3, 2]


class Echo(torch.nn.Module):
    """A model whose logits of a token are its number and the negative of that."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": torch.stack([input_ids, -input_ids], -1).float()}


@pytest.fixture
def subject() -> Any:
    rows = [{"input_ids": [2] * length, "attention_mask": [1] * length} for length in LENGTHS]
    task = SimpleNamespace(
        outputs=("logits",), class_mask=lambda batch: None, token_mask=lambda batch: batch["attention_mask"].bool()
    )
    inputs = ["input_ids", "attention_mask"]
    return SimpleNamespace(
        task=task, model=Echo(), eval_features=Dataset.from_list(rows), inputs=inputs, padding={"input_ids": 9}
    )


def computed(batch: dict[str, np.ndarray], error: float, at_padding: float = 0.0) -> dict[str, np.ndarray]:
    """Logits of a file of the fixed shape [5, 7] whose first class is too large by ``error``."""
    rows, tokens = batch["input_ids"].shape
    logits = np.full((5, 7, 2), np.nan, np.float32)  # the rows and tokens that the batch does not have
    logits[:rows, :tokens] = np.stack([batch["input_ids"], -batch["input_ids"]], -1)
    logits[:rows, :tokens, 0] += np.where(batch["attention_mask"] == 1, error, at_padding)
    return {"logits": logits}


def test_the_highest_and_the_root_mean_square_over_the_spread(subject):
    found = measure_distance(subject, lambda batch: computed(batch, 0.5))
    assert found.highest == 0.5
    # Logits are 2 and -2: their spread is 2. Half of them are wrong by 0.5: sqrt(0.25 / 2) / 2.
    assert found.rms == pytest.approx(0.125**0.5 / 2)


def test_padding_does_not_count(subject):
    found = measure_distance(subject, lambda batch: computed(batch, 0.0, at_padding=100.0))
    assert (found.highest, found.rms) == (0.0, 0.0)


def test_the_batches_have_1_and_3_rows_and_all(subject):
    shapes = []
    measure_distance(subject, lambda batch: shapes.append(batch["input_ids"].shape) or computed(batch, 0.0))
    assert shapes == [(1, 1), (3, 3), (3, 3), (3, 3)]


def test_a_logit_that_is_not_a_number_stays_one(subject):
    found = measure_distance(subject, lambda batch: computed(batch, float("nan")))
    assert np.isnan(found.highest)
    assert np.isnan(found.rms)
