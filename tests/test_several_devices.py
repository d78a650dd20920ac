"""One run in two processes: one directory, the same masks, the same numbers as one process at the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sparse_xp.places import CONF
from sparse_xp.result import Result
from sparse_xp.run import run
from tests.runs import HANGS, configure

# Two processes take as long as twenty other tests; tests/data/test_batches.py checks the batches of each.
pytestmark = pytest.mark.slow

WORDS = (
    "profile=embedded", "log=none", "task=sst2", "recipe=gradual80", "teacher=none", "model.dropout=0",
    "data.embedded_train_rows=96", "data.embedded_eval_rows=32", "train.epochs=3", "train.batch_size=8",
    "train.device=cpu", "log.every=1",
)  # fmt: skip


def python(*words: str) -> str:
    env = os.environ | {"PYTHONPATH": str(CONF.parent)}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=HANGS, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """``one`` accumulates two batches for each step, ``two`` has a process for each."""
    place = tmp_path_factory.mktemp("devices")
    cache = f"data.cache={place}/cache"
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29637", "-m", "sparse_xp"]
    said = python(*launch, *WORDS, cache, f"hydra.run.dir={place}/two")
    assert said.count("steps of 3 epochs") == 1  # one process speaks
    run(configure(*WORDS, cache, "train.gradient_accumulation_steps=2"), place / "one")
    return place


def test_the_result_is_that_of_one_process(runs):
    one, two = (Result.read(runs / name / "result.json") for name in ("one", "two"))
    assert two.training.steps == one.training.steps == 18
    assert two.metrics == pytest.approx(one.metrics, abs=3.2)  # one row of 32
    assert two.sparsity.prunable == one.sparsity.prunable == pytest.approx(0.8, abs=1e-3)
    assert two.training.eval_rows == one.training.eval_rows == 32


def test_the_losses_are_those_of_one_process(runs):
    one, two = (
        [json.loads(line) for line in (runs / name / "history.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    for key in ("loss", "lr", "sparsity"):
        np.testing.assert_allclose(*([s[key] for s in steps if key in s] for steps in (one, two)), rtol=2e-3, atol=1e-6)


def test_the_masks_are_those_of_one_process(runs):
    one, two = (load_file(runs / name / "model/model.safetensors") for name in ("one", "two"))
    names = [name for name, weight in one.items() if "encoder" in name and weight.ndim == 2]
    same = sum(int(((one[name] == 0) == (two[name] == 0)).sum()) for name in names)
    assert same / sum(one[name].size for name in names) > 0.999  # near-ties may fall to either side by rounding


def test_there_is_one_directory(runs):
    assert sorted(path.name for path in runs.iterdir()) == [".locks", "cache", "one", "two"]
    assert not (runs / "two" / "checkpoints").exists()
