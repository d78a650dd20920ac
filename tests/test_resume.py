"""An interrupted run ends bit for bit where an uninterrupted one does."""

from __future__ import annotations

import random
import signal
import time

import pytest
import torch

from sparse_xp.files.directories import atomic_directory
from sparse_xp.run import run
from sparse_xp.run_directory import checkpoints
from sparse_xp.training import checkpoint
from tests.runs import HANGS, SHORT, configure, difference, history, start, without_export

#: 24 steps; checkpoints at other steps than evaluations and epochs
WORDS = (*SHORT, "task=sst2", "recipe=gradual80", "train.save_every=5 steps", "train.eval_every=8 steps")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    directory = tmp_path_factory.mktemp("teacher")
    with without_export():
        run(configure(*SHORT, "task=sst2", "recipe=dense", f"data.cache={directory / 'cache'}"), directory / "dense")
    return directory / "dense"


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 4])
def test_sigkill_at_random_steps(tmp_path, teacher, times):
    """A real process, killed at steps drawn at random. In the default suite tests/test_kills.py kills forks."""
    words = (*WORDS, "teacher=checkpoint", f"teacher.path={teacher}", f"data.cache={teacher.parent / 'cache'}")
    straight = start(tmp_path / "straight", *words)
    chance = random.Random(20261121)
    kills = sorted(chance.sample(range(2, 22), times))
    for at in kills:
        process = start(tmp_path / "broken", *words)
        deadline = time.monotonic() + HANGS
        while max((line["step"] for line in history(tmp_path / "broken")), default=0) < at:
            assert process.poll() is None, (tmp_path / "broken.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "broken/result.json").exists()
    assert start(tmp_path / "broken", *words).wait(HANGS) == 0
    assert straight.wait(HANGS) == 0
    assert "continuing at step" in (tmp_path / "broken.log").read_text()
    assert difference(tmp_path / "straight", tmp_path / "broken") == []


class Power(Exception):
    """The plug is pulled."""


@pytest.mark.parametrize(
    ("accumulation", "words"),
    [
        pytest.param(1, ("task=sst2", "recipe=dense"), marks=pytest.mark.slow),
        (1, ("task=squad", "recipe=pruned80", "train.group_by_length=false")),
        pytest.param(3, ("task=squad", "recipe=gradual80", "sparsity=gradual_global"), marks=pytest.mark.slow),
        pytest.param(
            1,
            ("task=sst2", "recipe=gradual80", "sparsity=gradual_block4", "recipe.weight_decay.weight_decay=0.1"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            1,
            (
                "task=sst2",
                "model.layers=3",
                "+modifier@recipe.modifiers.layers=LayerPruning",
                "recipe.modifiers.layers.layers=[bert.encoder.layer.1]",
            ),
            marks=pytest.mark.slow,
        ),
        (
            2,
            (
                "task=sst2",
                "teacher=checkpoint",
                "teacher.path=TEACHER",
                "+modifier@recipe.modifiers.hidden=PerLayerDistillation",
                "recipe.modifiers.hidden.gain=0.1",
            ),
        ),
        (
            1,
            (
                "task=sst2",
                "~recipe.learning_rate.decay",
                "~recipe.learning_rate.warmup",
                "+modifier@recipe.modifiers.cycles=ScheduledLearningRate",
                "recipe.modifiers.cycles.lr_class=CosineAnnealingWarmRestarts",
                "+recipe.modifiers.cycles.lr_kwargs={lr_min: 1e-6, cycle_epochs: 0.5}",
                "recipe.modifiers.cycles.init_lr=1e-4",
                "recipe.modifiers.cycles.end=5 steps",
                "+modifier@recipe.modifiers.rate=SetLearningRate",
                "recipe.modifiers.rate.learning_rate=5e-5",
                "recipe.modifiers.rate.start=6 steps",
                "+modifier@recipe.modifiers.frozen=TrainableParams",
                "recipe.modifiers.frozen.params=['re:bert.embeddings']",
                "recipe.modifiers.frozen.trainable=false",
                "recipe.modifiers.frozen.end=9 steps",
                "+modifier@recipe.modifiers.bias=SetParam",
                "recipe.modifiers.bias.params=[classifier.bias]",
                "recipe.modifiers.bias.val=0.5",
                "recipe.modifiers.bias.start=8 steps",
            ),
        ),
        pytest.param(1, ("task=sst2", "recipe=gradual80", "sparsity=acdc"), marks=pytest.mark.slow),
        (2, ("task=conll2003", "recipe=gradual80", "sparsity=movement")),
        (
            1,
            ("task=sst2", "recipe=soft_movement", "sparsity.end=80%", "sparsity.score_learning_rate=0.5"),
        ),
        (
            2,
            (
                "task=sst2",
                "teacher=checkpoint",
                "teacher.path=TEACHER",
                "+modifier@recipe.modifiers.attention=AttentionDistillation",
            ),
        ),
        (
            1,
            (
                "task=sst2",
                "recipe=structured50",
                "model.layers=3",
                "sparsity=structured_global",
                "sparsity.layers=true",
                "sparsity.score=first_order",  # by which one is gone at the save, and scores are gathered on
                "recipe.sparsity=0.85",
                "sparsity.end=40%",
                "sparsity.update_frequency=0",
                "+modifier@recipe.modifiers.embeddings=EmbeddingPruning",
                "recipe.modifiers.embeddings.final_sparsity=0.5",
                "recipe.modifiers.embeddings.end=40%",
            ),
        ),
        (
            1,
            (  # heads and neurons are cut out before the save
                "task=sst2",
                "recipe=structured50_quant",
                "sparsity.end=25%",
                "sparsity.update_frequency=0",
                "recipe.quantization_start=70%",
            ),
        ),
        (1, ("task=squad", "recipe=gradual80", "sparsity=obert", "sparsity.num_grads=8")),
        (
            2,
            (
                "task=sst2",
                "recipe=gradual80",
                "quantization=int8",
                "quantization.start=7 steps",
                "quantization.observers_end=9 steps",
            ),
        ),
    ],
)
def test_every_modifier_resumes(tmp_path, monkeypatch, teacher, trained_only, words, accumulation):
    """The same in one process, for each kind of modifier, stopped in the middle of an epoch between two saves.

    Without a gradient scaler, as here, SparseML began its rates and schedules anew; ours go on.
    """
    config = configure(
        *WORDS,
        "teacher=none",
        *(word.replace("TEACHER", str(teacher)) for word in words),
        f"train.gradient_accumulation_steps={accumulation}",
        f"data.cache={tmp_path}/cache",
    )
    run(config, tmp_path / "straight")
    real, calls = checkpoint.save, []

    def fail_after_the_second(this):
        if len(calls) == 1:
            raise Power
        real(this)
        calls.append(this.progress.step)

    monkeypatch.setattr(checkpoint, "save", fail_after_the_second)
    with pytest.raises(Power):
        run(config, tmp_path / "broken")
    monkeypatch.setattr(checkpoint, "save", real)
    torch.manual_seed(99)  # whatever happened to the generators in between must not matter
    run(config, tmp_path / "broken")
    assert difference(tmp_path / "straight", tmp_path / "broken") == []


def test_finished_run_is_skipped(tmp_path, trained_only):
    config = configure(*SHORT, "task=sst2", "recipe=dense", f"data.cache={tmp_path}/cache")
    first = run(config, tmp_path / "run")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert run(config, tmp_path / "run") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == written


def test_half_written_checkpoint_is_not_picked_up(tmp_path):
    # nor is a directory of the user's, for which a run would have given up its own
    for name in ("step-00000004", ".step-00000009.tmp", ".step-00000008.old", "step-old", "step-backup", "step-9"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000004"]


def test_a_damaged_checkpoint_makes_room_for_the_one_that_is_written_again(tmp_path, capsys):
    for step in (4, 8):
        with atomic_directory(tmp_path / f"step-{step:08d}", "checkpoint") as draft:
            (draft / "state.pt").write_text("state")
    (tmp_path / "step-00000008" / "checksums.txt").write_text("")
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000004"
    assert "step-00000008 is damaged (checksums.txt does not list state.pt): the one before it is used" in (
        capsys.readouterr().out.replace("\n", " ")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000008.damaged-1"]
