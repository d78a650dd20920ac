"""Whole runs without some layers: pruned, delivered, exported, resumed."""

from __future__ import annotations

import json
import re

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from sparse_xp.clock import Clock
from sparse_xp.delivery import dropped_layers, pruned_names
from sparse_xp.errors import UserError
from sparse_xp.functional.structured.config import removal_summary
from sparse_xp.modifiers import LayerPruning, MagnitudePruning
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.run import run
from tests.encoders import BATCH, make_encoder
from tests.runs import SHORT, configure
from tests.tiny import make_run

WORDS = (
    *SHORT,
    "task=sst2",
    "recipe=gradual80",
    "teacher=none",
    "model.layers=3",
    "+modifier@recipe.modifiers.layers=LayerPruning",
    "recipe.modifiers.layers.layers=[bert.encoder.layer.1]",
)


def attached(*layers: str, **more):
    model = make_encoder("Bert", 12)
    names = [f"bert.encoder.layer.{number}" if number.isdigit() else number for number in layers]
    # The pruning ends, and so sorts, before the whole run ends.
    modifiers = {
        "sparsity": MagnitudePruning(final_sparsity=0.5, end="50%", **more),
        "layers": LayerPruning(layers=names),
    }
    recipe = ModifierList(modifiers, Clock(1, 4))
    this = make_run(1, 4, model=model, modifier_list=recipe)
    recipe.attach(this)
    return this, modifiers["sparsity"]


@pytest.mark.parametrize(("gone", "tensors"), [("1 3 5 7 9 10", 36), ("1 2 3 4 5 7 8 9 10", 18)])
def test_pruning_finds_the_survivors_whatever_starts_first(gone, tensors):
    this, pruning = attached(*gone.split())
    assert list(this.modifier_list.modifiers) == ["sparsity", "layers"]
    assert len(pruning.targets) == tensors
    assert not any(f"layer.{number}." in name for name in pruning.targets for number in gone.split())


def test_pruned_names_are_those_of_the_delivered_model():
    this, _ = attached("1", "2", params=["re:.*layer.11.*query.weight", "re:.*layer.0.*query.weight"])
    before = [this.model.get_parameter(name) for name in pruned_names(this)]
    assert pruned_names(this) == [f"bert.encoder.layer.{n}.attention.self.query.weight" for n in (0, 11)]
    this.modifier_list.detach(this)
    assert pruned_names(this) == [f"bert.encoder.layer.{n}.attention.self.query.weight" for n in (0, 9)]
    assert all(
        self is other for self, other in zip(before, map(this.model.get_parameter, pruned_names(this)), strict=True)
    )
    assert torch.isfinite(this.model(**BATCH).logits).all()


def test_the_removed_share_counts_whole_layers():
    this, _ = attached("1", "2", "3")
    assert dropped_layers(this) == [1, 2, 3]
    this.modifier_list.detach(this)
    removed = removal_summary(this.model, dropped_layers(this))
    assert (removed.share, removed.layers, len(removed.heads)) == (pytest.approx(3 / 12), [1, 2, 3], 9)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["bert.encoder.layers.1"], r"No encoder layer matches 'bert\.encoder\.layers\.1'\. Did you mean 'bert\.enc"),
        (["bert.pooler"], r"No encoder layer matches 'bert\.pooler'.* There are: bert\.encoder\.layer\.0, "),
        (["1", "bert.encoder.layer.12"], r"No encoder layer matches 'bert\.encoder\.layer\.12'\. Did you mean"),
        (["re:bert.encoder.layer"], r"removes all 12 layers of the encoder"),
    ],
)
def test_layers_that_cannot_be_removed(layers, message):
    with pytest.raises(UserError, match=message):
        attached(*layers)


@pytest.mark.parametrize("window", [{"start": 1}, {"start": "10%"}, {"end": 2}, {"end": "99%"}, {"end": "5 steps"}])
def test_only_for_the_whole_run(window):
    with pytest.raises(ValueError, match=r"LayerPruning from start=.* can only be removed for the whole run"):
        LayerPruning(layers=["bert.encoder.layer.1"], **window)


def test_layers_must_be_named():
    with pytest.raises(ValueError, match=r"LayerPruning\.layers is empty"):
        LayerPruning()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    place = tmp_path_factory.mktemp("layers")
    result = run(configure(*WORDS, "train.save_every=5 steps", f"data.cache={place}/cache"), place / "run")
    return place / "run", result


def test_the_delivered_model_has_fewer_layers(straight):
    place, result = straight
    model, info = AutoModelForSequenceClassification.from_pretrained(place / "model", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (model.config.num_hidden_layers, len(model.bert.encoder.layer)) == (2, 2)
    assert result.sparsity.prunable == pytest.approx(0.8, abs=1e-3)
    assert len(result.sparsity.layers) == 12
    assert {int(re.search(r"layer\.(\d+)", name)[1]) for name in result.sparsity.layers} == {0, 1}
    for name, found in result.sparsity.layers.items():
        weight = model.get_parameter(name)
        assert (weight == 0).float().mean().item() == pytest.approx(found) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.slow
def test_the_export_passes_its_gate(straight):
    place, result = straight
    assert result.deployment.max_abs_diff < 1e-3
    assert (place / "deployment/model.onnx").is_file()
    assert json.loads((place / "deployment/config.json").read_text())["num_hidden_layers"] == 2
    recipe = yaml.safe_load((place / "recipe.yaml").read_text())["modifiers"]
    assert recipe["recipe.modifiers.layers"]["layers"] == ["bert.encoder.layer.1"]


@pytest.mark.slow
def test_the_survivors_come_from_the_checkpoint_by_their_own_numbers(tmp_path):
    """Trained with a rate of almost nothing, the second of two layers is the checkpoint's third."""
    words = (
        *WORDS,
        "recipe=dense",
        "train.learning_rate=1e-12",
        "train.epochs=0.5",
        "recipe.weight_decay.weight_decay=0",
    )
    run(configure(*words, f"data.cache={tmp_path}/cache"), tmp_path / "run")
    [source] = (tmp_path / "cache/models").glob("tiny-*/model.safetensors")
    before, after = load_file(source), load_file(tmp_path / "run/model/model.safetensors")
    name = "encoder.layer.{}.intermediate.dense.weight"
    torch.testing.assert_close(after[f"bert.{name.format(1)}"], before[name.format(2)], atol=1e-6, rtol=0)
    assert not torch.allclose(after[f"bert.{name.format(1)}"], before[name.format(1)], atol=1e-3)
