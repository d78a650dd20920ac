"""What a modifier keeps is where the model is: attached, stepped, saved and restored on another device than the CPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sparse_xp.functional.model_calls import moved
from sparse_xp.modifiers import (
    ACDCPruning,
    ConstantPruning,
    EmbeddingPruning,
    LayerPruning,
    MagnitudePruning,
    Modifier,
    MovementPruning,
    OBSPruning,
    PerLayerDistillation,
    Quantization,
    SoftMovementPruning,
    StructuredPruning,
)
from sparse_xp.modifiers.modifier_list import ModifierList
from tests.elsewhere import ELSEWHERE, Distance, Distant, send
from tests.encoders import make_encoder
from tests.tiny import loss_of, make_run

STEPS = 6
EVERY = {"start": 0.0, "end": "4 steps", "update_frequency": "1 steps"}
LAYERS = ["bert.encoder.layer.0"]
MODIFIERS: dict[str, Any] = {
    "magnitude": lambda: MagnitudePruning(final_sparsity=0.5, **EVERY),
    "movement": lambda: MovementPruning(final_sparsity=0.5, **EVERY),
    "movement later": lambda: MovementPruning(final_sparsity=0.5, **EVERY | {"start": "2 steps"}),
    "soft movement": lambda: SoftMovementPruning(score_learning_rate=0.9, **EVERY),
    "acdc": lambda: ACDCPruning(compression_sparsity=0.5, update_frequency="1 steps"),
    "constant": lambda: ConstantPruning(min_sparsity=0.0),
    "obs": lambda: OBSPruning(
        final_sparsity=0.5, num_grads=4, mask_type="block4", fisher_block_size=8, damp=1e-3, **EVERY
    ),
    "structured": lambda: StructuredPruning(
        final_sparsity=0.4, global_sparsity=True, layers=True, multiple=1, **EVERY | {"start": "1 steps"}
    ),
    "repair": lambda: StructuredPruning(
        final_sparsity=0.4, global_sparsity=True, score="obs", multiple=1, **EVERY | {"start": "1 steps"}
    ),
    "embeddings": lambda: EmbeddingPruning(final_sparsity=0.5, multiple=1, **EVERY | {"start": "1 steps"}),
    "layers": lambda: LayerPruning(layers=LAYERS),
    "quantization": lambda: Quantization(start="1 steps", attention_products=True),
    "per-layer distillation": lambda: PerLayerDistillation(
        student_layer_names=LAYERS, teacher_layer_names=LAYERS, project_features=True
    ),
}


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 19, (4, 6), generator=generator)
    columns = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([0, 1, 0, 1])}
    return {name: Distant(values) for name, values in columns.items()}


class Teacher:
    """A teacher elsewhere that runs at every step."""

    def __init__(self) -> None:
        self.model = student()

    def __call__(self, rows: list[int], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            outputs = self.model(**{name: value for name, value in batch.items() if name != "labels"})
        return {"logits": outputs.logits}


def student() -> Any:
    model = make_encoder("Bert", layers=2)
    model.set_attn_implementation("eager")  # the fused kernel asks the device
    send(model)
    return model


def tensors_in(value: object, seen: set[int]) -> list[torch.Tensor]:
    """All tensors that can be reached from an object of the modifier's, but those of modules."""
    if id(value) in seen or isinstance(value, torch.nn.Module | type):
        return []
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    else:
        inside = type(value).__module__.startswith("sparse_xp")
        parts = list(vars(value).values()) if inside and hasattr(value, "__dict__") else []
    return [tensor for part in parts for tensor in tensors_in(part, seen)]


def step(modifier: Modifier, run: Any) -> None:
    modifier.before_step(run)
    run.model.train()
    rows, inputs = [0, 1, 2, 3], batch()
    outputs = run.model(**inputs)
    loss_of(modifier, run, rows, inputs, outputs, outputs.loss).backward()
    modifier.before_update(run)
    run.optimizer.step()
    run.optimizer.zero_grad()
    modifier.after_update(run)
    run.progress.step += 1
    modifier.check(run)
    modifier.logs(run)


@pytest.mark.parametrize("name", MODIFIERS)
def test_a_modifier_keeps_its_state_where_the_model_is(name, monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # it knows no device of this kind
    modifier = MODIFIERS[name]()
    with Distance():
        model = student()
        run = make_run(
            STEPS, STEPS, model=model, device=ELSEWHERE, seed=0, teacher=Teacher(),
            wrapper=SimpleNamespace(autocast=True, compiled=None),
            task_loss=lambda inputs: model(**inputs).loss, example_inputs=lambda: without_labels(batch()),
            gradient_batches=lambda count, *_: [batch() for _ in range(count)],
        )  # fmt: skip
        run.accelerator.device, run.modifier_list = ELSEWHERE, ModifierList({name: modifier}, run.clock)
        modifier.attach(run)
        run.optimizer = torch.optim.Adam([*model.parameters(), *modifier.parameters(run)], lr=1e-3, foreach=False)
        for _ in range(STEPS - 1):
            step(modifier, run)
            assert all(tensor.device == ELSEWHERE for tensor in tensors_in(modifier, set()))
        state = modifier.state_dict()
        assert all(tensor.device == ELSEWHERE for tensor in tensors_in(state, set()))
        saved = moved(state, torch.device("cpu"))
        assert all(tensor.device.type == "cpu" for tensor in tensors_in(saved, set()))
        modifier.load_state_dict(moved(saved, ELSEWHERE))
        step(modifier, run)
        modifier.detach(run)


def without_labels(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: values for name, values in inputs.items() if name != "labels"}
