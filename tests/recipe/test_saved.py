"""The recipe beside the weights: it reads back equal, comes behind that of its checkpoint, and asks of a run."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from sparse_xp.clock import Clock
from sparse_xp.delivery import recipe_text
from sparse_xp.errors import UserError
from sparse_xp.models.loading import load_model
from sparse_xp.modifiers import (
    MODIFIERS,
    ConstantPruning,
    Distillation,
    LayerPruning,
    LearningRate,
    MagnitudePruning,
    Quantization,
    RewoundLearningRate,
    ScheduledLearningRate,
    SetLearningRate,
    WeightDecay,
)
from sparse_xp.modifiers.base import OneTime
from sparse_xp.recipe.inherit import inherit, is_inherited, read_base, removed_layers
from sparse_xp.recipe.parsed import parse_modifiers
from sparse_xp.recipe.saved import PERIODS, POINTS, in_epochs, shifted, write_recipe
from sparse_xp.recipe.tags import TAG_OF_MODIFIER
from sparse_xp.recipe.text import read_recipe
from sparse_xp.recipe.zoo import FILES
from tests.recipe.random_recipes import random_recipe
from tests.recipe.test_as_sparseml_saves import COMPOSED
from tests.runs import configure
from tests.tiny import make_bert

CLOCK = Clock(100, 400)


def read(text: str):
    return parse_modifiers(read_recipe(text))


def write(plan, base=None) -> str:
    """What a run of ``plan`` leaves."""
    return write_recipe(plan.modifiers, Clock(1000, round((plan.epochs or 3) * 1000)), base)


def test_every_tag_is_of_a_modifier():
    assert TAG_OF_MODIFIER.keys() <= MODIFIERS.keys()


def test_a_modifier_that_sparseml_had_not(monkeypatch):
    monkeypatch.delitem(TAG_OF_MODIFIER, "Distillation")
    assert "- !Distillation {}\n" in (text := write_recipe({"d": Distillation()}, CLOCK))
    assert list(read(text).modifiers.values()) == [Distillation()]


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_a_shipped_recipe_reads_back_equal_under_the_same_tags(path):
    plan = parse_modifiers(read_recipe(str(path)))
    text = write(plan)
    assert read(text).modifiers == plan.modifiers
    assert read(text).epochs == plan.epochs
    assert all(line.rstrip().endswith("Modifier") for line in text.splitlines() if "- !" in line)


@pytest.mark.parametrize("seed", range(60))
def test_any_recipe_that_can_be_written_reads_back_equal(seed):
    plan = read(random_recipe(random.Random(1000 + seed)) + "  - !SetParamModifier {params: [z], val: 1}\n")
    back = read(write(plan))
    assert list(back.modifiers.values()) == list(plan.modifiers.values())
    assert [type(each) for each in back.modifiers.values()] == [type(each) for each in plan.modifiers.values()]
    assert back.epochs == (plan.epochs or 3)
    assert write(back) == write(plan)


NATIVE = {
    "a": LearningRate(init_lr=0.0, final_lr=5e-5, end="10%"),
    "b": WeightDecay(weight_decay=0.01),
    "c": ConstantPruning(min_sparsity=0.8),
    "d": MagnitudePruning(final_sparsity=0.8, start="10%", end="100%", update_frequency="20 steps", exclude=["x"]),
    "e": Quantization(start="70%", observers_end="90%", exclude=["${x}", "LayerNorm"]),
    "f": Distillation(hardness=1.0),
}


def test_what_no_tag_says_stands_under_its_own_name():
    text = write_recipe(NATIVE, CLOCK, metadata={"precision": "fp32"})
    back = read(text)
    assert list(back.modifiers.values()) == [in_epochs(each, CLOCK) for each in NATIVE.values()]
    tags = [line.split("!")[1].split()[0] for line in text.splitlines() if "- !" in line]
    assert tags == [
        "EpochRangeModifier",
        "LearningRateFunctionModifier",
        "WeightDecay",
        "ConstantPruning",
        "MagnitudePruning",
        "Quantization",
        "DistillationModifier",
    ]
    assert yaml.safe_load(text.partition("modifiers:")[0])["__metadata__"] == {"metadata": {"precision": "fp32"}}
    assert back.modifiers["LearningRateFunction"].end == 0.4
    assert back.modifiers["MagnitudePruning"].update_frequency == 0.2


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{hardnes: 1}", "recipe:2:29: !Distillation has no hardnes. Did you mean 'hardness'?"),
        ("{hardness: much}", "recipe:2:30: !Distillation: Value 'much'"),
        ("{hardness: 2}", "recipe:2:5: !Distillation: Distillation.hardness=2.0"),
        ("{outputs: 5}", "recipe:2:"),
    ],
)
def test_what_is_wrong_under_an_own_name(written, message):
    with pytest.raises(UserError) as error:
        read(f"modifiers:\n  - !Distillation {written}\n")
    assert str(error.value).startswith(message)


def test_an_own_name_interpolates_nothing():
    [found] = read("modifiers:\n  - !Quantization {exclude: ['${oc.env:HOME}']}\n").modifiers.values()
    assert found.exclude == ["${oc.env:HOME}"]


# Composition with the recipe of the checkpoint

FIRST = """\
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 4}
  - !LearningRateFunctionModifier {start_epoch: 0, end_epoch: 4, lr_func: linear, init_lr: 0.1, final_lr: 0}
  - !DistillationModifier {hardness: 0.5}
  - !QuantizationModifier {start_epoch: 2, submodules: [bert.encoder], disable_quantization_observer_epoch: 3}
"""
SECOND = """\
modifiers:
  - !LearningRateFunctionModifier {start_epoch: 0, end_epoch: 3, lr_func: linear, init_lr: 0.2, final_lr: 0}
  - !DistillationModifier {hardness: 1.0}
  - !ConstantPruningModifier {params: __ALL_PRUNABLE__}
"""


def test_t26_stages_follow_one_another():
    """SparseML numbered the third stage 3, and wrote an end of quantization with which nothing could be read again."""
    one, two = read(FIRST), read(SECOND)
    assert "stage" not in write(one)
    text = write(two, read(write(one)))
    assert [line for line in text.splitlines() if line.startswith("stage")] == ["stage_0:", "stage_1:"]
    both = read(text)
    assert both.epochs == 7
    assert list(both.modifiers.values()) == [
        LearningRate(init_lr=0.1, final_lr=0.0, end=4.0),
        Distillation(hardness=0.5, end=4.0),
        Quantization(
            start=2.0,
            observers_end=3.0,
            submodules=["bert.encoder"],
            linear_outputs=True,
            embedding_outputs=True,
            per_channel=False,
            reduce_range=False,
        ),
        LearningRate(init_lr=0.2, final_lr=0.0, start=4.0, end=7.0),
        Distillation(hardness=1.0, start=4.0),
        ConstantPruning(params=["__ALL_PRUNABLE__"], start=4.0, refresh_masks=True, min_sparsity=0.0),
    ]
    three = read(write(two, both))
    assert three.epochs == 10
    assert {tagged.stage for tagged in three.sources.values()} == {"stage_0", "stage_1", "stage_2"}
    assert three.modifiers["LearningRateFunction_3"].start == 7
    assert [each.end for each in three.modifiers.values() if isinstance(each, Distillation)] == [4.0, 7.0, "100%"]


def test_t26_a_third_stage_as_sparseml_numbered_it():
    text = write(read(SECOND), read(write(read(FIRST)))).replace("stage_1", "stage_3")
    third = write(read(SECOND), read(text))
    assert [line for line in third.splitlines() if line.startswith("stage")] == ["stage_0:", "stage_3:", "stage_2:"]
    assert "stage_3" in write(read(SECOND), read(third.replace("stage_0", "s").replace("stage_3", "t")))


def test_t26_the_end_of_quantization_in_a_recipe_composed_by_sparseml():
    plan = read(FIRST.replace("{start_epoch: 2, ", "{start_epoch: 2, end_epoch: 8, "))
    assert plan.modifiers["Quantization"].end == "100%"
    assert any("end_epoch is not used" in remark for remark in plan.remarks)


def test_times_of_later_stages():
    later = {
        "rate": ScheduledLearningRate(
            lr_class="MultiStepLR", lr_kwargs={"milestones": [1, 2], "gamma": 0.1}, init_lr=1
        ),
        "set": SetLearningRate(learning_rate=0.1, start=1.0),
        "layers": LayerPruning(layers=["a"]),
        "q": Quantization(start=1.0, observers_end=2.0),
        "recipe.modifiers.checkpoint_Quantization": Quantization(),
    }
    assert [name for name in later if is_inherited(name)] == ["recipe.modifiers.checkpoint_Quantization"]
    found = read(write_recipe(later, CLOCK, read(FIRST.replace("Quantization", "SparsificationLogging", 0)))).modifiers
    new = list(found.values())[3:]
    assert new[0].lr_kwargs["milestones"] == [5, 6]
    assert (new[0].start, new[1].start, new[2].start) == (4.0, 5.0, 0.0)
    assert (new[3].start, new[3].observers_end) == (5.0, 6.0)
    assert len(new) == 4
    assert all(each.end == "100%" for each in new if isinstance(each, OneTime))


def test_every_time_of_a_modifier_is_known():
    """Each is a point of the run or a period; ``in_epochs`` and ``shifted`` go through these names."""
    times = {each.name for kind in MODIFIERS.values() for each in fields(kind) if each.type == "TimeSpec"}
    assert times == {*POINTS, *PERIODS}


def test_every_time_is_in_epochs_and_shifted():
    rate = RewoundLearningRate(peak_lr=0.1, warmup="10%", ramp_start="25%", ramp_end="100 steps", update_frequency="1%")
    pruning = MagnitudePruning(final_sparsity=0.8, start="1 steps", end="50%", refresh_until="75%")
    rate, pruning = in_epochs(rate, CLOCK), in_epochs(pruning, CLOCK)
    assert rate == RewoundLearningRate(peak_lr=0.1, warmup=0.4, ramp_start=1.0, ramp_end=1.0, update_frequency=0.04)
    assert pruning == MagnitudePruning(final_sparsity=0.8, start=0.01, end=2.0, refresh_until=3.0)
    assert shifted(rate, 4.0) == replace(rate, start=4.0, warmup=4.4, ramp_start=5.0, ramp_end=5.0)
    assert shifted(pruning, 4.0) == replace(pruning, start=4.01, end=6.0, refresh_until=7.0)


@dataclass(kw_only=True)
class ChangesPredictions(WeightDecay):
    """A modifier of the run whose ``detach`` changes predictions."""

    @property
    def post_training(self) -> bool:
        return True


def test_a_modifier_that_changes_predictions_may_have_times():
    assert shifted(ChangesPredictions(start=1.0), 4.0).start == 5.0
    calibrated = Quantization(calibration_rows=8)
    assert shifted(calibrated, 4.0) == calibrated


def test_settings_of_later_stages():
    """A weight decay holds until the next stage sets another, under SparseML's tag."""
    one, two = (f"modifiers:\n  - !EpochRangeModifier {{start_epoch: 0, end_epoch: 4}}\n  - !SetWeightDecayModifier "
                f"{{weight_decay: {value}}}\n" for value in (0.1, 0.2))  # fmt: skip
    text = write(read(two), read(write(read(two), read(write(read(one))))))
    assert text.count("!SetWeightDecayModifier") == 3
    found = read(text).modifiers.values()
    assert [(each.weight_decay, each.start, each.end) for each in found] == [
        (0.1, 0.0, 4.0), (0.2, 4.0, 8.0), (0.2, 8.0, "100%"),
    ]  # fmt: skip


# What it asks of a run


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A small BERT with a recipe beside it."""
    make_bert().save_pretrained(tmp_path / "old")
    (tmp_path / "old/recipe.yaml").write_text(FIRST)
    return tmp_path / "old"


def test_a_quantized_checkpoint_stays_quantized(checkpoint):
    config = configure("task=sst2", "recipe=dense", f"model.checkpoint={checkpoint}")
    name = "checkpoint_Quantization"
    assert list(config.recipe.modifiers) == [name]
    assert config.recipe.modifiers[name].submodules == ["bert.encoder"]
    assert (config.recipe.modifiers[name].start, config.recipe.modifiers[name].observers_end) == (0.0, None)
    [remark] = config.recipe.remarks
    assert "recipe.yaml: the checkpoint was made in 8 bits" in remark
    config = configure("task=sst2", "recipe=dense", "quantization=int8", f"model.checkpoint={checkpoint}")
    assert not config.recipe.modifiers
    # a run's own recipe.yaml is of another form; what counts is the one beside its weights
    place = checkpoint.parent / "run"
    place.mkdir()
    shutil.copytree(checkpoint, place / "model")
    (place / "recipe.yaml").write_text("recipe: dense\nmodifiers: {}\n")
    (place / "result.json").write_text("{}")
    config = configure("task=sst2", "recipe=dense", f"model.checkpoint={place}")
    assert list(config.recipe.modifiers) == [name]
    assert config.recipe.remarks == [remark.replace(str(checkpoint), str(place / "model"))]
    (checkpoint / "recipe.yaml").unlink()
    assert not configure("task=sst2", "recipe=dense", f"model.checkpoint={checkpoint}").recipe.modifiers


UNREADABLE = {
    "another dialect": "stage:\n  run_type: train\n  p_modifiers:\n    M: {a: 1}\n",
    "8 bits that cannot be had": FIRST.replace("start_epoch: 2,", "start_epoch: 2, tensorrt: true,"),
    "a modifier for language models": "modifiers:\n  - !GPTQModifier {}\n",
    "no YAML": "modifiers: [\n",
    "empty": "",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=list(UNREADABLE))
def test_a_recipe_that_cannot_be_read_stops_the_run_unless_told_to_go_on(checkpoint, text):
    """An 8-bit checkpoint must not go on in floating point because a field of its recipe is unknown."""
    (checkpoint / "recipe.yaml").write_text(text)
    words = ("task=sst2", "recipe=dense", f"model.checkpoint={checkpoint}")
    with pytest.raises(UserError, match=r"recipe beside the checkpoint's weights cannot be read.*recipe.inherit=false"):
        configure(*words)
    config = configure(*words, "recipe.inherit=false")
    assert (config.recipe.modifiers, config.recipe.remarks) == ({}, [])
    assert removed_layers(str(checkpoint)) == []


def test_a_run_that_inherits_nothing(checkpoint):
    config = configure("task=sst2", "recipe=dense", f"model.checkpoint={checkpoint}", "recipe.inherit=false")
    assert (config.recipe.modifiers, config.recipe.remarks) == ({}, [])
    run = SimpleNamespace(
        modifier_list=SimpleNamespace(modifiers={"d": Distillation()}),
        clock=CLOCK,
        source=str(checkpoint),
        train=SimpleNamespace(batch_size=1, eval_batch_size=1),
        accelerator=SimpleNamespace(mixed_precision="no"),
    )
    assert "Quantization" in recipe_text(run, inherits=True)
    assert "Quantization" not in recipe_text(run, inherits=False)


def test_a_checkpoint_without_a_recipe():
    assert read_base("bert-base-uncased") is None
    assert read_base(None) is None


def test_of_several_stages_with_8_bits_the_last_is_inherited(checkpoint):
    second = "  - !QuantizationModifier {start_epoch: 5, weight_bits: 4}\n"
    (checkpoint / "recipe.yaml").write_text(f"{FIRST}{second}")
    found, [_] = inherit(str(checkpoint), [])
    assert list(found) == ["checkpoint_Quantization_2"]
    assert found["checkpoint_Quantization_2"].weight_bits == 4


def test_an_8_bit_checkpoint_as_sparseml_saved_it_stays_in_8_bits(checkpoint):
    """Its recipe, with all fields written out, came out as a remark, and the run went on in floating point."""
    (checkpoint / "recipe.yaml").write_text(COMPOSED)
    found, remarks = inherit(str(checkpoint), [])
    assert [type(each) for each in found.values()] == [Quantization]
    assert "8 bits" in remarks[0]


def test_t34_layers_that_a_checkpoint_of_sparseml_lacks_are_left_out(tmp_path):
    """Its configuration still counts them, and stock ``from_pretrained`` would fill them with random weights."""
    from transformers import BertConfig, BertForSequenceClassification

    shape = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=3, max_position_embeddings=16, **shape))
    model.save_pretrained(tmp_path)
    (tmp_path / "recipe.yaml").write_text("modifiers:\n  - !LayerPruningModifier {layers: [bert.encoder.layer.1]}\n")
    assert inherit(str(tmp_path), []) == ({}, [])  # they are all there
    weights = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if ".layer.1." not in k}, tmp_path / "model.safetensors")
    found, [remark] = inherit(str(tmp_path), [])
    assert found == {"checkpoint_LayerPruning": LayerPruning(layers=["bert.encoder.layer.1"])}
    assert "bert.encoder.layer.1" in remark


def test_t25_names_of_a_quantized_checkpoint_of_sparseml(checkpoint):
    """Its wrappers put ``.module`` into names: without it the matrices would be new ones."""
    model = make_bert()
    wrapped = {}
    for name, value in model.state_dict().items():
        stem, _, kind = name.rpartition(".")
        inside = isinstance(model.get_submodule(stem), torch.nn.Linear)
        wrapped[f"{stem}.module.{kind}" if inside else name] = value
        wrapped |= {f"{stem}.quant.activation_post_process.scale": torch.ones(1)} if inside else {}
    (checkpoint / "model.safetensors").unlink()
    torch.save(wrapped, checkpoint / "pytorch_model.bin")
    loaded, new = load_model(configure("task=sst2", "task.max_length=16").task, str(checkpoint))
    assert new == []
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
