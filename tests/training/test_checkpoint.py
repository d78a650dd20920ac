"""What a checkpoint and the best model bring back, and that reading them runs no code."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from sparse_xp.clock import Clock
from sparse_xp.files.checksums import write_checksums
from sparse_xp.files.directories import atomic_directory
from sparse_xp.modifiers import MagnitudePruning
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.training import checkpoint
from sparse_xp.training.state import Progress
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
