"""On CUDA: fp16 with loss scaling learns, keeps its zeros, and delivers a file that agrees with it."""

from __future__ import annotations

import pytest
import torch

from sparse_xp.run import run
from tests.runs import configure

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("recipe", ["dense", "gradual80"])
def test_fp16(tmp_path, recipe):
    config = configure(
        "profile=embedded", "log=none", "task=sst2", f"recipe={recipe}", "teacher=none", "train.precision=auto"
    )
    result = run(config, tmp_path / "run")
    assert result.training.precision == "fp16"
    assert result.metrics["accuracy"] > 70
    assert result.deployment.max_abs_diff < 1e-3
    if recipe == "gradual80":
        assert result.sparsity.prunable == pytest.approx(0.8, abs=1e-4)
