"""On a GPU each kind of modifier trains in fp16, does what it promises, and goes on exactly where it was stopped."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from sparse_xp.run import run
from sparse_xp.training import checkpoint
from tests.gpu.machine import GPU, HALF, WORDS
from tests.runs import configure, difference, history, without_export

pytestmark = GPU

QAT = ("quantization=int8", "quantization.start=7 steps", "quantization.observers_end=18 steps")
#: each kind: the task, what else is asked for, and the zeros that the prunable weights must have (None: no promise)
KINDS: dict[str, tuple[str, tuple[str, ...], float | None]] = {
    "dense": ("sst2", ("recipe=dense",), 0.0),
    "magnitude": ("squad", ("recipe=gradual80",), 0.8),
    "magnitude over all": ("sst2", ("recipe=gradual80", "sparsity=gradual_global"), 0.8),
    "blocks of four": ("sst2", ("recipe=gradual80", "sparsity=gradual_block4"), 0.8),
    "obert": ("sst2", ("recipe=gradual80", "sparsity=obert", "sparsity.num_grads=8"), 0.8),
    "movement": ("conll2003", ("recipe=gradual80", "sparsity=movement"), 0.8),
    "movement from the start": ("sst2", ("recipe=gradual80", "sparsity=movement", "sparsity.start=0"), 0.8),
    "soft movement": (
        "sst2",
        ("recipe=soft_movement", "sparsity.end=80%", "sparsity.score_learning_rate=0.5"),
        None,
    ),
    "acdc": ("sst2", ("recipe=gradual80", "sparsity=acdc"), 0.8),
    "structured": ("sst2", ("recipe=structured50",), None),
    "structured over all, layers, embeddings": (
        "sst2",
        (
            "recipe=structured50", "model.layers=3", "sparsity=structured_global", "sparsity.layers=true",
            "recipe.sparsity=0.7", "+modifier@recipe.modifiers.embeddings=EmbeddingPruning",
            "recipe.modifiers.embeddings.final_sparsity=0.5",
        ),
        None,
    ),
    "layers": (
        "sst2",
        (
            "recipe=dense", "model.layers=3", "+modifier@recipe.modifiers.layers=LayerPruning",
            "recipe.modifiers.layers.layers=[bert.encoder.layer.1]",
        ),
        None,
    ),
    "quantized": ("sst2", ("recipe=gradual80", *QAT), 0.8),
    "quantized with ranges of each batch": (
        "sst2",
        ("recipe=gradual80", "quantization=int8_dynamic", "quantization.start=7 steps"),
        0.8,
    ),
    "quantized after training": ("sst2", ("recipe=dense", "quantization=ptq_int8"), 0.0),
    "locked": ("sst2", ("recipe=pruned80", "model.sparsity=0.8"), 0.8),
    "distilled from itself": ("sst2", ("recipe=gradual80", "teacher=self", "model.checkpoint=TEACHER"), 0.8),
    "distilled, stored": ("sst2", ("recipe=gradual80", "teacher=checkpoint", "teacher.path=TEACHER"), 0.8),
    "distilled, live": (
        "sst2",
        ("recipe=gradual80", "teacher=checkpoint", "teacher.path=TEACHER", "teacher.reuse_logits=false"),
        0.8,
    ),
    "embeddings": ("custom_embedding", ("recipe=gradual80", *QAT, "teacher=self"), 0.8),
    "layers distilled": (
        "sst2",
        (
            "recipe=dense", "teacher=checkpoint", "teacher.path=TEACHER",
            "+modifier@recipe.modifiers.hidden=PerLayerDistillation", "recipe.modifiers.hidden.gain=0.1",
        ),
        0.0,
    ),
    "attention distilled": (
        "sst2",
        (
            "recipe=dense", "teacher=checkpoint", "teacher.path=TEACHER",
            "+modifier@recipe.modifiers.attention=AttentionDistillation",
        ),
        0.0,
    ),
}  # fmt: skip


class Power(Exception):
    """The plug is pulled."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    place = tmp_path_factory.mktemp("teacher")
    with without_export():
        run(configure(*WORDS, "task=sst2", "recipe=dense", f"data.cache={place}/cache"), place / "dense")
    return place / "dense"


def words_of(kind, teacher, place):
    task, words, _ = KINDS[kind]
    words = tuple(word.replace("TEACHER", str(teacher)) for word in words)
    return (*WORDS, f"task={task}", *words, f"train.precision={HALF}", f"data.cache={place}/cache")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_modifier(tmp_path, monkeypatch, teacher, trained_only, kind):
    words = (*words_of(kind, teacher, tmp_path), "train.save_every=5 steps", "train.deterministic=true")
    result = run(configure(*words), tmp_path / "straight")
    assert result.training.precision == HALF
    losses = [line["loss"] for line in history(tmp_path / "straight") if "loss" in line]
    assert len(losses) == result.training.steps == 24
    assert all(math.isfinite(loss) for loss in losses)
    weights = load_file(tmp_path / "straight/model/model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    zeros = KINDS[kind][2]
    if zeros is not None:
        assert result.sparsity.prunable == pytest.approx(zeros, abs=2e-3)
    if kind.startswith(("structured", "layers", "soft")) and kind != "layers distilled":
        assert result.sparsity.prunable > 0.02 or result.sparsity.removed.share > 0.2

    real, saved = checkpoint.save, []

    def fail_after_the_second(this):
        if len(saved) == 1:
            raise Power
        real(this)
        saved.append(this.progress.step)

    monkeypatch.setattr(checkpoint, "save", fail_after_the_second)
    with pytest.raises(Power):
        run(configure(*words), tmp_path / "broken")
    monkeypatch.setattr(checkpoint, "save", real)
    torch.manual_seed(99)
    run(configure(*words), tmp_path / "broken")
    assert difference(tmp_path / "straight", tmp_path / "broken") == []
