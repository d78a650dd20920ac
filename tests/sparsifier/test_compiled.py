"""Models of ``torch.compile`` train to the weights of the others. Only the last test needs a C++ compiler."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from sparse_xp.modifiers import (
    Distillation,
    LearningRate,
    MagnitudePruning,
    Modifier,
    MovementPruning,
    PerLayerDistillation,
    Quantization,
)
from tests.sparsifier.loops import assert_same, make_batches, make_model, sparsify, train, weights_of

ALL = ["__ALL_PRUNABLE__"]
RECIPES: dict[str, list[Modifier]] = {
    "pruning": [MagnitudePruning(final_sparsity=0.5, params=ALL, end="50%"), LearningRate(init_lr=0.01, final_lr=0.0)],
    "movement": [MovementPruning(final_sparsity=0.5, params=ALL, start="2 steps", end="50%")],
    "quantization": [Quantization(start="50%", observers_end="75%")],
    "distillation": [Distillation(), PerLayerDistillation()],
}


@pytest.fixture(autouse=True)
def _without_earlier_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled_given(model: Any, make: Callable[[Any], Any], backend: str) -> tuple[Any, Any]:
    model = torch.compile(model, backend=backend)
    return model, make(model)


def inner_given(model: Any, make: Callable[[Any], Any], backend: str) -> tuple[Any, Any]:
    return torch.compile(model, backend=backend), make(model)


def compiled_after(model: Any, make: Callable[[Any], Any], backend: str) -> tuple[Any, Any]:
    sparsifier = make(model)
    return torch.compile(model, backend=backend), sparsifier


def compiled_in_place(model: Any, make: Callable[[Any], Any], backend: str) -> tuple[Any, Any]:
    model.compile(backend=backend)
    return model, make(model)


def trained(recipe: list[Modifier], way: Callable[..., tuple[Any, Any]] | None, backend: str = "eager") -> Any:
    model, batches = make_model("mlp"), make_batches("mlp")
    distils = any(isinstance(modifier, Distillation) for modifier in recipe)

    def make(given: Any) -> Any:
        torch.manual_seed(3)
        words = {"teacher": make_model("mlp", seed=5), "batches": batches} if distils else {}
        torch.manual_seed(3)
        return sparsify(given, recipe, torch.optim.AdamW(model.parameters(), lr=0.01), **words)

    called, sparsifier = (model, make(model)) if way is None else way(model, make, backend)
    train(sparsifier, called, batches)
    sparsifier.finalize()
    with torch.no_grad():
        return model, called.eval()(batches[0][0])


@pytest.mark.parametrize("way", [compiled_given, inner_given, compiled_after, compiled_in_place])
@pytest.mark.parametrize("name", RECIPES)
def test_a_compiled_model_trains_to_the_same_weights(name: str, way: Callable[..., tuple[Any, Any]]) -> None:
    plain, wanted = trained(RECIPES[name], None)
    model, outputs = trained(RECIPES[name], way)
    assert_same(weights_of(plain), weights_of(model))
    assert torch.equal(outputs, wanted)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("name", RECIPES)
def test_kernels_of_inductor_differ_by_rounding_alone(name: str) -> None:
    plain, wanted = trained(RECIPES[name], None)
    model, outputs = trained(RECIPES[name], compiled_given, "inductor")
    for key, weight in plain.state_dict().items():
        assert torch.allclose(weight, model.state_dict()[key], atol=1e-4)
    assert torch.allclose(outputs, wanted, atol=1e-3)
