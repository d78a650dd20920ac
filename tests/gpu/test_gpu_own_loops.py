"""Loops that are not ours on a GPU: a plain one with autocast and a GradScaler, and the Trainer."""

from __future__ import annotations

import pytest
import torch

from sparse_xp.modifiers import Distillation, MagnitudePruning, MovementPruning, Quantization, StructuredPruning
from sparse_xp.sparsifier.sparsifier import Sparsifier
from tests.gpu.machine import DEVICE, GPU, REHEARSED
from tests.sparsifier.loops import make_batches, make_model
from tests.sparsifier.trainers import prune_and_quantize, trained

pytestmark = GPU

STEPS_PER_EPOCH, STEPS = 4, 12
RECIPES = {
    "magnitude": lambda: [MagnitudePruning(final_sparsity=0.8, start="10%", end="60%", update_frequency="1 steps")],
    "movement": lambda: [MovementPruning(final_sparsity=0.8, start=0, end="60%", update_frequency="1 steps")],
    "structured": lambda: [
        StructuredPruning(final_sparsity=0.5, multiple=1, start="10%", end="60%", update_frequency="1 steps")
    ],
    "quantized": lambda: [*prune_and_quantize(), Distillation()],
}


@pytest.mark.parametrize("scale", [2.0**10, 2.0**22], ids=["no overflow", "overflow"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_loop_with_autocast_and_a_scaler(recipe, scale):
    half = torch.bfloat16 if REHEARSED else torch.float16
    model, teacher = (make_model("bert", seed).to(DEVICE) for seed in (0, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(DEVICE, init_scale=scale)
    modifiers = RECIPES[recipe]()
    uses_teacher = any(isinstance(each, Distillation) for each in modifiers)
    sparsifier = Sparsifier(
        modifiers, model, optimizer, steps_per_epoch=STEPS_PER_EPOCH, epochs=3,
        teacher=teacher if uses_teacher else None, scaler=scaler, max_grad_norm=1.0,
    )  # fmt: skip
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model.train()
    batches = make_batches("bert")
    for step in range(STEPS):
        batch = {name: value.to(DEVICE) for name, value in batches[step % len(batches)].items()}
        with torch.autocast(DEVICE, dtype=half):
            outputs = model(**batch)
            loss = sparsifier.loss(outputs.loss, outputs, batch)
        scaler.scale(loss).backward()
        sparsifier.step()
    sparsifier.finalize()
    weights = dict(model.named_parameters())
    assert all(torch.isfinite(weight).all() and weight.device.type == DEVICE for weight in weights.values())
    assert any(not torch.equal(before[name], w) for name, w in weights.items() if w.shape == before.get(name, w).shape)
    if recipe in ("magnitude", "movement", "quantized"):
        matrices = [w for name, w in weights.items() if "encoder" in name and w.ndim == 2]
        zeros = sum(int((w == 0).sum()) for w in matrices) / sum(w.numel() for w in matrices)
        assert zeros == pytest.approx(0.8, abs=0.02)
    if scale > 2.0**20 and not REHEARSED:
        assert scaler.get_scale() < scale


@pytest.mark.parametrize("precision", ["bf16"] if REHEARSED else ["fp16", "bf16"])
def test_a_trainer(tmp_path, precision):
    more = {"use_cpu": REHEARSED, precision: True, "output_dir": str(tmp_path)}
    trainer = trained(prune_and_quantize(), more=more)
    model = trainer.model
    assert next(model.parameters()).device.type == DEVICE
    matrices = [w for name, w in model.named_parameters() if "encoder" in name and w.ndim == 2]
    zeros = sum(int((w == 0).sum()) for w in matrices) / sum(w.numel() for w in matrices)
    assert zeros == pytest.approx(0.8, abs=0.02)
    assert any(isinstance(each, Quantization) for each in trainer.sparsifier.modifiers.values())
