"""Two processes of a ``Trainer``: the same weights on both, exact resuming; and a Trainer that shards is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sparse_xp.modifiers import Distillation, MovementPruning, PerLayerDistillation
from sparse_xp.places import CONF
from tests.sparsifier.trainers import prune_and_quantize, small_bert, token_rows, training_arguments, weights

# Two processes take as long as twenty other tests.
pytestmark = pytest.mark.slow

LAYERS = {"student_layer_names": ["bert.encoder.layer.0"], "teacher_layer_names": ["bert.encoder.layer.1"]}
RECIPES: dict[str, Any] = {
    "logits": lambda: [*prune_and_quantize(), Distillation()],
    "gradients": lambda: [
        MovementPruning(final_sparsity=0.5, start="10%", end="60%", update_frequency="1 steps"),
        PerLayerDistillation(**LAYERS),
    ],
}


def train(name: str) -> None:
    """Train and resume in the processes of ``torchrun``; each writes a checksum of its weights."""
    from sparse_xp.sparsifier.hugging_face import SparseTrainer

    more: dict[str, Any] = {"ddp_backend": "gloo", "per_device_train_batch_size": 4, "save_strategy": "steps"}
    if name == "sharded":
        more |= {"fsdp": True}
    sums = []
    for seed, checkpoint in ((0, None), (7, "trained/checkpoint-5")):
        trainer = SparseTrainer(
            small_bert(seed), training_arguments(save_steps=5, **more), train_dataset=token_rows(),
            recipe=RECIPES.get(name, prune_and_quantize)(),
            teacher=small_bert(3) if name in RECIPES else None,
        )  # fmt: skip
        trainer.train(checkpoint)
        sums.append([value.double().sum().item() for value in weights(trainer.model).values()])
    Path(f"sums-{torch.distributed.get_rank()}.json").write_text(json.dumps(sums))


def torchrun(name: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m"]
    env = os.environ | {"PYTHONPATH": str(CONF.parent)}
    return subprocess.run(
        [*words, "tests.sparsifier.test_trainer_processes", name],
        capture_output=True, text=True, check=False, timeout=600, env=env,
    )  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_processes_have_the_same_weights(name: str) -> None:
    done = torchrun(name)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (json.loads(Path(f"sums-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first[0] == first[1]  # the whole training, and the resumed one


def test_shards_are_refused() -> None:
    done = torchrun("sharded")
    assert done.returncode != 0
    assert "FSDP shards weights and optimizer, which masks do not support" in done.stdout + done.stderr


if __name__ == "__main__":
    train(sys.argv[1])
