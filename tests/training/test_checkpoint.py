"""What a checkpoint and the best model bring back, and that reading them runs no code."""

from __future__ import annotations

import os
import pickle
from unittest import mock

import pytest
import torch

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import write_checksums
from sparse_xp.files.directories import atomic_directory
from sparse_xp.modifiers import MagnitudePruning
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.run import run
from sparse_xp.training import checkpoint, precision
from sparse_xp.training.state import Progress
from tests.runs import SHORT, configure
from tests.tiny import make_bert, make_run


class Bomb:
    """What a tampered file would hold: unpickling it makes a directory."""

    def __reduce__(self):
        return os.mkdir, ("code_ran",)


@pytest.fixture
def this(tmp_path):
    """A run of 10 steps that prunes, at step 5."""
    recipe = ModifierList(
        {"sparsity": MagnitudePruning(final_sparsity=0.5, start=0, update_frequency=0.0)}, Clock(5, 10)
    )
    fields = {"model": make_bert(), "modifier_list": recipe, "directory": tmp_path, "device": torch.device("cpu")}
    context = make_run(5, 10, **fields, origin="rows", progress=Progress(step=5))
    recipe.attach(context)
    recipe.before_step(context)
    return context


def test_a_checkpoint_cannot_run_code(this, tmp_path):
    with atomic_directory(tmp_path / "checkpoints/step-00000005", "checkpoint") as draft:  # with checksums that match
        torch.save({"data": "rows", "model": Bomb()}, draft / "state.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        checkpoint.restore(this)
    assert not (tmp_path / "code_ran").exists()


def test_the_best_model_cannot_run_code(this, tmp_path):
    checkpoint.save_best(this)
    torch.save({"sparsity": Bomb()}, tmp_path / "best/recipe.pt")
    write_checksums(tmp_path / "best", "best")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        checkpoint.load_best(this)
    assert not (tmp_path / "code_ran").exists()


def test_the_best_model_comes_back_with_the_state_of_its_modifiers(this):
    pruning = this.modifier_list.modifiers["sparsity"]
    weights = {name: weight.clone() for name, weight in this.model.state_dict().items()}
    masks = {name: mask.clone() for name, mask in pruning.masks.items()}
    checkpoint.save_best(this)
    this.progress.step = 9
    with torch.no_grad():
        for parameter in this.model.parameters():
            parameter.mul_(torch.randn_like(parameter))
    this.modifier_list.before_step(this)  # other weights are the smallest now, and more of them
    assert any(not torch.equal(mask, masks[name]) for name, mask in pruning.masks.items())
    checkpoint.load_best(this)
    assert all(torch.equal(weight, weights[name]) for name, weight in this.model.state_dict().items())
    assert all(torch.equal(mask, masks[name]) for name, mask in pruning.masks.items())
    this.modifier_list.check(this)


@pytest.fixture
def interrupted(tmp_path, trained_only):
    """What continues a run that was interrupted at step 3 of 8; it gets the changes of its last state."""
    words = ("task=sst2", "recipe=gradual80", "teacher=none", "train.epochs=1", "train.save_every=3 steps")
    config = configure(*SHORT, *words, "train.precision=auto", f"data.cache={tmp_path}/cache")
    real, calls = checkpoint.save, []

    def once(run):
        if calls:
            raise InterruptedError
        calls.append(run)
        real(run)

    with mock.patch.object(checkpoint, "save", once), pytest.raises(InterruptedError):
        run(config, tmp_path / "run")

    def go_on(change):
        path = tmp_path / "run/checkpoints/step-00000003"
        state = torch.load(path / "state.pt", weights_only=True)
        change(state)
        torch.save(state, path / "state.pt")
        write_checksums(path, "checkpoint")
        return run(config, tmp_path / "run")

    return go_on


def as_earlier(state):
    """The state as earlier versions wrote it: without numerics, with the random states of all visible GPUs."""
    del state["precision"], state["device"]
    for each in state["random"]:
        del each["device"]
        each["cuda"] = [torch.zeros(16, dtype=torch.uint8), torch.ones(16, dtype=torch.uint8)]


@pytest.mark.parametrize("change", [lambda state: None, as_earlier])
def test_auto_continues_in_the_precision_in_which_the_run_began(interrupted, monkeypatch, capsys, change):
    began = precision.native_precision(torch.device("cpu"))[0]
    other = "fp32" if began == "bf16" else "bf16"
    if change is not as_earlier:  # which does not know
        monkeypatch.setattr(precision, "native_precision", lambda device: (other, "in a dream"))
    assert interrupted(change).training.precision == began
    assert ("in which the run began on cpu" in capsys.readouterr().out) == (change is not as_earlier)


def test_a_run_that_began_elsewhere_continues_where_its_precision_is_computed(interrupted, capsys):
    def from_a_gpu(state):
        state.update(precision="fp32", device="cuda")
        state["random"][0]["device"] = {"kind": "cuda", "state": torch.zeros(16, dtype=torch.uint8)}

    assert interrupted(from_a_gpu).training.precision == "fp32"
    said = capsys.readouterr().out
    assert "precision: fp32, in which the run began on cuda" in said
    assert "the checkpoint was written on cuda: on cpu the run continues, but not bit for bit" in said


@pytest.mark.parametrize("earlier", [True, False])
def test_a_run_that_began_in_fp16_does_not_continue_on_a_cpu(interrupted, earlier):
    def in_fp16(state):
        state.update(precision="fp16", device="cuda", scaler={"scale": 65536.0, "_growth_tracker": 0})
        if earlier:
            as_earlier(state)

    with pytest.raises(UserError, match=r"began in fp16 on cuda, and this CPU does not compute fp16.*hydra\.run\.dir="):
        interrupted(in_fp16)


def test_the_random_state_is_that_of_the_own_device():
    """A run on the second of two visible GPUs goes on where there is one, also with the states of earlier versions."""
    first, second = torch.zeros(16), torch.ones(16)
    cpu, one, two = map(torch.device, ("cpu", "cuda:0", "cuda:1"))
    own = {"device": {"kind": "cuda", "state": second}}
    assert [checkpoint.saved_device_state(own, device) is second for device in (one, two)] == [True, True]
    assert checkpoint.saved_device_state(own, cpu) is None
    earlier = {"cuda": [first, second]}
    assert checkpoint.saved_device_state(earlier, one) is first
    assert checkpoint.saved_device_state(earlier, two) is second
    assert checkpoint.saved_device_state({"cuda": [first]}, two) is first
    assert checkpoint.saved_device_state({"cuda": []}, one) is None
