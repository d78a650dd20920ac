"""``train.keep_checkpoints``: models from the middle of a run, each as the run would deliver it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import find_damage
from sparse_xp.functional.sparsity import measure_sparsity
from sparse_xp.run import run
from sparse_xp.structured import load
from sparse_xp.training import checkpoint, kept_models
from sparse_xp.training.kept_models import kept_name, kept_step
from tests.runs import SHORT, configure, history

pytestmark = pytest.mark.usefixtures("trained_only")

WORDS = (*SHORT, "task=sst2", "teacher=none", "data.embedded_train_rows=64", "train.save_every=0.5")


def names(directory):
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("step", "name"), [(4, "epoch-1"), (10, "epoch-2.5"), (1, "epoch-0.25"), (40, "epoch-10"), (5, "epoch-1.25")]
)
def test_names_are_epochs(tmp_path, step, name):
    assert kept_name(Clock(4, 40), step) == name
    assert kept_step(Clock(4, 40), tmp_path / name) == step


def test_a_step_within_an_epoch_of_uneven_length_is_a_step(tmp_path):
    clock = Clock(5533, 20_000)
    assert [kept_name(clock, step) for step in (5533, 2767, 500)] == ["epoch-1", "step-2767", "step-500"]
    assert [kept_step(clock, tmp_path / name) for name in ("step-500", "epoch-1", "step-00000500", "notes")] == [
        500, 5533, -1, -1,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """Twelve steps, pruned to 80 % in steps 1 to 7, the last three of six checkpoints kept."""
    place = tmp_path_factory.mktemp("kept")
    run(configure(*WORDS, "recipe=gradual80", "train.keep_checkpoints=3"), place / "run")
    run(configure(*WORDS, "recipe=gradual80"), place / "without")
    return place


def test_the_last_ones_are_kept_and_load_with_transformers(pruned):
    assert names(pruned / "run") == ["epoch-2", "epoch-2.5", "epoch-3"]
    for name in names(pruned / "run"):
        folder = pruned / "run/checkpoints" / name
        assert not find_damage(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        assert measure_sparsity(model).prunable == pytest.approx(0.8, abs=1e-3)
        assert AutoTokenizer.from_pretrained(folder).model_max_length > 0
    weights = [load_file(pruned / "run/checkpoints" / name / "model.safetensors") for name in names(pruned / "run")]
    assert not torch.equal(weights[0]["classifier.weight"], weights[1]["classifier.weight"])


def test_they_change_nothing_of_the_run(pruned):
    assert history(pruned / "run") == history(pruned / "without")
    one, other = (load_file(pruned / name / "model/model.safetensors") for name in ("run", "without"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (pruned / "without/checkpoints").exists()


def test_one_of_them_starts_another_run(pruned, tmp_path):
    words = ("recipe=dense", "sparsity=locked", "train.epochs=1", f"model.checkpoint={pruned}/run/checkpoints/epoch-2")
    result = run(configure(*WORDS, *words, "recipe.name=further"), tmp_path / "run")
    assert result.sparsity.prunable == pytest.approx(0.8, abs=1e-3)


def test_what_a_run_removes_at_its_end_is_removed_in_them(tmp_path):
    """Heads and neurons, a layer, dimensions of the embeddings, and 8 bits from the middle of the run on."""
    config = configure(
        *WORDS, "recipe=structured50_quant", "model.layers=3", "train.keep_checkpoints=9", "train.keep_best=false",
        "+modifier@recipe.modifiers.layers=LayerPruning", "recipe.modifiers.layers.layers=[bert.encoder.layer.1]",
        "+modifier@recipe.modifiers.narrow=EmbeddingPruning", "recipe.modifiers.narrow.final_sparsity=0.5",
    )  # fmt: skip
    run(config, tmp_path / "run")
    assert len(names(tmp_path / "run")) == 6
    sizes = []
    for name in names(tmp_path / "run"):
        folder = tmp_path / "run/checkpoints" / name
        model = load(folder)
        assert model.config.num_hidden_layers == 2
        assert model(input_ids=torch.tensor([[2, 5, 3]])).logits.isfinite().all()
        sizes.append(sum(weight.numel() for weight in model.parameters()))
        assert (folder / "quantization.json").exists() == (name in ("epoch-2.5", "epoch-3"))
        assert ("Quantization" in (folder / "recipe.yaml").read_text()) == (name in ("epoch-2.5", "epoch-3"))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
    last, delivered = (tmp_path / "run" / name for name in ("checkpoints/epoch-3", "model"))
    for file in ("model.safetensors", "config.json", "quantization.json", "recipe.yaml"):
        assert (last / file).read_bytes() == (delivered / file).read_bytes()


def test_what_is_quantized_after_training_is_not_quantized_in_them(tmp_path):
    run(configure(*WORDS, "recipe=dense", "quantization=ptq_int8", "train.keep_checkpoints=1"), tmp_path / "run")
    assert names(tmp_path / "run") == ["epoch-3"]
    assert not (tmp_path / "run/checkpoints/epoch-3/quantization.json").exists()


class Power(Exception):
    """The plug is pulled."""


@pytest.mark.parametrize("place", ["before the state", "while a model is written"])
def test_an_interrupted_run_ends_with_the_same_ones(pruned, tmp_path, monkeypatch, place):
    config = configure(*WORDS, "recipe=gradual80", "train.keep_checkpoints=3")
    module, name = (checkpoint, "save") if place == "before the state" else (kept_models, "finished_copy")
    real, calls = getattr(module, name), []

    def fails_at_the_fifth(this):
        calls.append(this.step)
        if len(calls) == 5:
            raise Power
        return real(this)

    monkeypatch.setattr(module, name, fails_at_the_fifth)
    with pytest.raises(Power):
        run(config, tmp_path / "run")
    monkeypatch.undo()
    run(config, tmp_path / "run")
    assert names(tmp_path / "run") == ["epoch-2", "epoch-2.5", "epoch-3"]
    for each in names(tmp_path / "run"):
        ours, theirs = (place / "run/checkpoints" / each / "model.safetensors" for place in (tmp_path, pruned))
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_directory_of_the_user_in_its_place_is_left_alone(tmp_path):
    config = configure(*WORDS, "recipe=dense", "train.keep_checkpoints=1")
    (tmp_path / "run/checkpoints/epoch-3").mkdir(parents=True)
    (tmp_path / "run/checkpoints/epoch-3/notes.txt").write_text("mine")
    with pytest.raises(UserError):
        run(config, tmp_path / "run")
    assert (tmp_path / "run/checkpoints/epoch-3/notes.txt").read_text() == "mine"
