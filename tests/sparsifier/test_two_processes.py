"""Two processes under ``DistributedDataParallel``: the same masks, scales and weights on both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from sparse_xp.errors import UserError
from sparse_xp.modifiers import (
    Distillation,
    EmbeddingPruning,
    MagnitudePruning,
    Modifier,
    MovementPruning,
    OBSPruning,
    PerLayerDistillation,
    Quantization,
    SoftMovementPruning,
    StructuredPruning,
    TrainableParams,
)
from tests.sparsifier.loops import STEPS, make_batches, make_model, sparsify, train

# Two processes take as long as twenty other tests.
pytestmark = pytest.mark.slow

ALL = ["__ALL_PRUNABLE__"]
RECIPES: dict[str, tuple[str, list[Modifier]]] = {
    "magnitude": ("mlp", [MagnitudePruning(final_sparsity=0.5, params=ALL, end="50%", regrow=True)]),
    "movement": ("mlp", [MovementPruning(final_sparsity=0.5, params=ALL, start="2 steps", end="50%")]),
    "soft": ("mlp", [SoftMovementPruning(
        params=ALL, end="75%", final_threshold=0.45, final_lambda=1.0, score_learning_rate=0.05
    )]),
    "second order": ("mlp", [OBSPruning(final_sparsity=0.5, params=ALL, end="50%", num_grads=4, damp=1e-3)]),
    "training ranges": ("bert", [Quantization(start="25%", observers_end="75%", linear_outputs=True)]),
    "calibration": ("bert", [Quantization(calibration_rows=16)]),
    "distillation": ("mlp", [Distillation(), PerLayerDistillation(gain=0.1)]),
    "frozen": ("mlp", [TrainableParams(params=["0.weight"], trainable=False, end="50%")]),
    "thawed": ("mlp", [TrainableParams(params=["0.weight"], trainable=True, start="50%")]),
    "structured": ("modernbert", [StructuredPruning(
        final_sparsity=0.3, start="2 steps", end="50%", multiple=4, layers=True, global_sparsity=True
    )]),
    "repair": ("modernbert", [StructuredPruning(
        final_sparsity=0.3, start="2 steps", end="50%", multiple=4, score="obs", global_sparsity=True
    )]),
    "embeddings": ("bert", [EmbeddingPruning(final_sparsity=0.5, start="2 steps", end="50%", multiple=2)]),
}  # fmt: skip
WAYS = ("before", "wrapped", "inner")


def tensors(state: Any) -> Iterator[Tensor]:
    """Yield all tensors of a state, in order."""
    if isinstance(state, Tensor):
        yield state.detach().clone()
    for value in state.values() if isinstance(state, dict) else ():
        yield from tensors(value)


def train_one(name: str, way: str, rank: int) -> list[Tensor]:
    """Train on the batches of this process; return weights and state."""
    kind, recipe = RECIPES[name]
    model = make_model(kind)
    if name == "thawed":
        model[0].weight.requires_grad_(False)
    batches = make_batches(kind, rows=16)
    half = slice(8 * rank, 8 * rank + 8)
    mine = [
        {key: value[half] for key, value in batch.items()}
        if isinstance(batch, dict)
        else (batch[0][half], batch[1][half])
        for batch in batches
    ]
    # After training every process calibrates alone, on the same rows.
    words: dict[str, Any] = {"batches": batches if name == "calibration" else mine}
    if name == "distillation":
        words["teacher"] = make_model(kind, seed=5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(rank)  # what is drawn must not differ
    if way == "before":
        sparsifier = sparsify(model, recipe, optimizer, **words)
        wrapped = DistributedDataParallel(model)
    else:
        wrapped = DistributedDataParallel(model)
        sparsifier = sparsify(wrapped if way == "wrapped" else model, recipe, optimizer, **words)
    train(sparsifier, wrapped, mine)
    sparsifier.finalize()
    found = [*tensors(dict(model.state_dict())), *tensors(sparsifier.state_dict())]
    assert all(bool(each.isfinite().all()) for each in found)
    return found


def work(rank: int, directory: str) -> None:
    """Train all recipes in this process, and write what came out."""
    torch.set_num_threads(1)
    store = distributed.FileStore(os.path.join(directory, "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=120))
    results: dict[tuple[str, str], Any] = {}
    for name in RECIPES:
        for way in WAYS:
            if (name, way) == ("embeddings", "inner"):
                continue  # nothing tells that the model is wrapped already
            try:
                results[name, way] = train_one(name, way, rank)
            except UserError as error:
                results[name, way] = str(error)
    try:
        model = fully_shard(make_model("mlp"), mesh=init_device_mesh("cpu", (2,)))
        sparsify(model, [MagnitudePruning(final_sparsity=0.5)])
    except UserError as error:
        results["sharded", ""] = str(error)
    torch.save(results, os.path.join(directory, f"{rank}.pt"))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[str, str], Any]]:
    directory = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, args=(str(directory),), nprocs=2)
    return [torch.load(Path(directory) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in RECIPES if name != "embeddings"])
def test_both_processes_have_the_same_weights_and_masks(results: list[Any], name: str, way: str) -> None:
    first, second = (each[name, way] for each in results)
    assert len(first) == len(second) > 2
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_replaced_embeddings_want_the_sparsifier_before_the_wrapper(results: list[Any]) -> None:
    first, second = (each["embeddings", "before"] for each in results)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert "make the Sparsifier first, and wrap the model then" in results[0]["embeddings", "wrapped"]


@pytest.mark.parametrize("name", ["magnitude", "movement"])
def test_two_processes_prune_as_one_with_all_rows(results: list[Any], name: str) -> None:
    kind, recipe = RECIPES[name]
    model, batches = make_model(kind), make_batches(kind, rows=16)
    sparsifier = sparsify(model, recipe, torch.optim.SGD(model.parameters(), 0.1))
    train(sparsifier, model, batches, range(STEPS))
    for alone, shared in zip(model.state_dict().values(), results[0][name, "before"], strict=False):
        assert torch.equal(alone == 0, shared == 0)
        assert torch.allclose(alone, shared, atol=1e-6)


def test_sharded_weights_are_refused(results: list[Any]) -> None:
    for each in results:
        assert "shards its weights: masks do not support that" in each["sharded", ""]
