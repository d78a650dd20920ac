"""What a GPU has trained becomes a file that agrees with it on a CPU."""

from __future__ import annotations

import pytest

from sparse_xp.run import run
from tests.gpu.machine import GPU, HALF, WORDS
from tests.runs import configure

pytestmark = GPU


@pytest.mark.parametrize("precision", ["bf16", HALF] if HALF == "fp16" else ["bf16"])
@pytest.mark.parametrize("recipe", ["dense", "gradual80", "structured75_quant"])
def test_the_file_agrees_with_the_model(tmp_path, recipe, precision):
    words = (*WORDS, "train.epochs=10", "data.embedded_train_rows=1024", "train.batch_size=32", "task=sst2")
    config = configure(
        *words, f"recipe={recipe}", "teacher=none", f"train.precision={precision}", f"data.cache={tmp_path}/cache"
    )
    result = run(config, tmp_path / "run")
    assert result.training.precision == precision
    assert result.metrics["accuracy"] > 70
    assert result.deployment.integers == recipe.endswith("quant")
    if recipe != "structured75_quant":  # rounding ties fall to either side in 8 bits: the gate has its own measure
        assert result.deployment.max_abs_diff < 1e-3
    if recipe == "gradual80":
        assert result.sparsity.prunable == pytest.approx(0.8, abs=1e-4)
