"""A compiled model has the losses of one that is not. These tests take longest, and so come first."""

from __future__ import annotations

import pytest

from sparse_xp.run import run
from tests.gpu.machine import GPU, ONLY_CUDA, WORDS
from tests.runs import configure, history

pytestmark = [*GPU, ONLY_CUDA]


def losses(place, *words):
    run(configure(*WORDS, "model.dropout=0", f"data.cache={place.parent}/cache", *words), place)
    return [line["loss"] for line in history(place) if "loss" in line]


@pytest.mark.parametrize("recipe", ["dense", "gradual80", "structured50"])
def test_a_compiled_model_has_the_same_losses(tmp_path, trained_only, recipe):
    words = ("task=sst2", f"recipe={recipe}", "train.precision=fp32")
    eager = losses(tmp_path / "eager", *words)
    compiled = losses(tmp_path / "compiled", *words, "train.compile=true")
    assert compiled == pytest.approx(eager, abs=2e-3)
