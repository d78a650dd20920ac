"""``convert``: what it prints composes to the same modifiers, and trains to the same weights."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file

from sparse_xp.compose import to_object
from sparse_xp.config import Config
from sparse_xp.errors import UserError
from sparse_xp.places import CONF
from sparse_xp.recipe.convert import convert, literal
from sparse_xp.recipe.file import resolve
from sparse_xp.recipe.sparseml import TAGS, plan_of
from sparse_xp.recipe.text import read_recipe
from sparse_xp.recipe.zoo import FILES
from sparse_xp.run import run
from tests.runs import SHORT, configure, history

pytestmark = pytest.mark.usefixtures("trained_only")

TRAINS = """\
rate: 2e-3
training_modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}
  - !LearningRateFunctionModifier {start_epoch: 0, end_epoch: 1.5, lr_func: linear, init_lr: eval(rate), final_lr: 0}
  - !LearningRateFunctionModifier {start_epoch: 1.5, end_epoch: 3, lr_func: cosine, init_lr: 1e-3, final_lr: 0}
  - !SetWeightDecayModifier {start_epoch: 1, weight_decay: 0.01}
  - !GMPruningModifier
    params: ["re:.*encoder.layer.*(query|key|value|dense).weight$"]
    init_sparsity: 0.05
    final_sparsity: 0.8
    start_epoch: 0.5
    end_epoch: 2
    update_frequency: 0.25
    mask_type: [1, 4]
  - !DistillationModifier {hardness: 0.5, temperature: 2.0}
"""


def compose_from(folder: Path, *words: str) -> Config:
    """What ``--config-dir FOLDER`` and these words would run."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(to_object(compose("config", overrides=[*words, f"hydra.searchpath=['file://{folder}']"])))


@pytest.mark.slow
def converted(folder: Path, source: str, name: str = "mine", **options: Any) -> Path:
    """A directory with the converted recipe in it."""
    (folder / "recipe").mkdir(parents=True, exist_ok=True)
    (folder / "recipe" / f"{name}.yaml").write_text(convert(source, name=name, **options), encoding="utf-8")
    return folder


def test_a_converted_recipe_trains_to_the_same_weights(tmp_path):
    (tmp_path / "old.yaml").write_text(TRAINS)
    words = [*SHORT, "task=sst2", f"data.cache={tmp_path}/cache", "model.new_head=true"]
    start = configure(*words, "recipe=dense", "train.epochs=1")
    run(start, tmp_path / "start")
    words += [f"model.checkpoint={tmp_path}/start/model", "teacher=self"]
    old = configure(*words, "recipe=file", f"recipe.path={tmp_path}/old.yaml")
    mine = converted(tmp_path / "mine", f"{tmp_path}/old.yaml")
    new = compose_from(mine, *words, "recipe=mine")
    assert list(old.modifiers().items()) == list(new.modifiers().items())
    one, other = run(old, tmp_path / "one"), run(new, tmp_path / "other")
    assert one.metrics == other.metrics
    assert one.sparsity.prunable == pytest.approx(0.8, abs=0.01)
    # T30: SparseML's eval_loss had the distillation term in it; no loss is among what runs are compared by.
    told = [line["metrics"] for line in history(tmp_path / "one") if "metrics" in line]
    assert [list(each) for each in told] == [["accuracy"]] * 3
    weights, others = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "other"))
    assert weights.keys() == others.keys()
    assert all(bool((weights[name] == others[name]).all()) for name in weights)
    dense = load_file(tmp_path / "start" / "model" / "model.safetensors")
    assert not all(bool((weights[name] == dense[name]).all()) for name in weights)


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_every_shipped_recipe_converts_to_what_a_run_of_the_file_has(path, tmp_path):
    text = path.read_text()
    words = ["task=sst2" if "[logits]" in text else "task=squad"]
    words += ["teacher=dense" if "Distillation" in text else "teacher=none"]
    old = configure(*words, "recipe=file", f"recipe.path={path}", "recipe.name=mine")
    new = compose_from(converted(tmp_path, str(path)), *words, "recipe=mine")
    assert list(old.modifiers().items()) == list(new.modifiers().items())
    old, new = asdict(old), asdict(new)
    for fields in (old, new):
        fields["recipe"] = {k: v for k, v in fields["recipe"].items() if k not in ("path", "remarks")}
    assert old == new


# ---- recipes at random ----


def between(draw: random.Random, low: float, high: float) -> float:
    return round(draw.uniform(low, high), draw.choice([1, 3, 6]))


def names(draw: random.Random) -> list[str]:
    some = [
        "re:bert.encoder.layer.*.weight",
        "re:.*\\.query\\.weight$",
        "a.b",
        "re:x${2}",
        "re:y\\${z}",
        "'",
        "# no",
        "é",
    ]
    return draw.sample(some, draw.randint(1, 4))


def selection(draw: random.Random) -> Any:
    return draw.choice(["__ALL__", "__ALL_PRUNABLE__", names(draw)])


def some(draw: random.Random, fields: dict[str, Any]) -> dict[str, Any]:
    """Each optional field, or not."""
    return {name: value for name, value in fields.items() if draw.random() < 0.6}


def window(draw: random.Random) -> dict[str, Any]:
    start = draw.choice([0, 1, 2.5])
    return {"start_epoch": start, "end_epoch": start + draw.choice([0.5, 2, 7.25])}


def gradual(draw: random.Random) -> dict[str, Any]:
    final = draw.choice([0.5, 0.85, {"0.7": names(draw), "0.9": ["c.d"]}])
    several = isinstance(final, dict)
    return {
        **window(draw),
        "params": [] if several else selection(draw),
        "final_sparsity": final,
        "init_sparsity": draw.choice([0, 0.05, "__FROM_PARAM__"]),
        "update_frequency": draw.choice([-1, 0.01, 1]),
        **some(draw, {"leave_enabled": draw.choice([True, False]), "inter_func": draw.choice(["linear", "cubic"])}),
    }


def scheduler(draw: random.Random) -> dict[str, Any]:
    return draw.choice(
        [
            {"lr_class": "StepLR", "lr_kwargs": {"step_size": 1, "gamma": 0.5}},
            {"lr_class": "MultiStepLR", "lr_kwargs": {"milestones": [1, 2.5], "gamma": 0.1}},
            {"lr_class": "ExponentialLR", "lr_kwargs": {"gamma": 0.95}},
            {"lr_class": "CosineAnnealingWarmRestarts", "lr_kwargs": {"lr_min": 0, "cycle_epochs": 2}},
        ]
    )


def fields_of(tag: str, draw: random.Random) -> dict[str, Any]:
    """Valid fields for a tag."""
    both = {"start_epoch": draw.choice([-1, 0, 1]), "end_epoch": -1}
    shaped = some(draw, {"mask_type": draw.choice(["unstructured", "block4", [1, 4], [4, 1]])})
    together = some(draw, {"global_sparsity": draw.choice([True, False])})
    at = {"start_epoch": draw.choice([0.0, 1, 2.75])}
    shape = draw.choice(["linear", "cosine", "cyclic_linear"])
    cycle = {"cycle_epochs": 0.5} if shape == "cyclic_linear" else {}
    rate = between(draw, 1e-6, 1e-2) + 1e-9
    layers = {f"{who}_layer_names": names(draw) for who in ("student", "teacher")}
    legacy = {
        "submodules": names(draw),
        "weight_bits": 4,
        "quantize_embeddings": 0,
        "exclude_module_types": ["LayerNorm"],
    }
    scheme = {
        "ignore": names(draw),
        "scheme": "default",
        "scheme_overrides": {"Embedding": {"input_activations": None}},
    }
    return {
        "EpochRangeModifier": lambda: {"start_epoch": 0, "end_epoch": draw.randint(1, 30)},
        "LearningRateFunctionModifier": lambda: {
            **window(draw), "lr_func": shape, "init_lr": rate, "final_lr": 1e-8, **cycle,
        },
        "LearningRateModifier": lambda: {**scheduler(draw), "init_lr": rate, **some(draw, window(draw))},
        "SetLearningRateModifier": lambda: {"learning_rate": rate, **at},
        "SetWeightDecayModifier": lambda: {"weight_decay": between(draw, 0, 0.1), **at},
        "TrainableParamsModifier": lambda: {
            "params": selection(draw), "trainable": draw.choice([True, False]), **both,
            **some(draw, {"params_strict": False}),
        },
        "SetParamModifier": lambda: {"params": selection(draw), "val": between(draw, -1e5, 1e5), **at},
        "GMPruningModifier": lambda: {**gradual(draw), **shaped, **together},
        "MagnitudePruningModifier": lambda: {**gradual(draw), **shaped},
        "GlobalMagnitudePruningModifier": lambda: {**gradual(draw), **shaped},
        "ConstantPruningModifier": lambda: {"params": selection(draw), **both},
        "ACDCPruningModifier": lambda: {
            **window(draw), "params": selection(draw), "compression_sparsity": 0.9, "update_frequency": 0.5,
            **together, **shaped,
        },
        "MovementPruningModifier": lambda: {**gradual(draw), **shaped, **together},
        "OBSPruningModifier": lambda: {
            **gradual(draw), **together, **some(draw, {"grad_sampler_kwargs": {"batch_size": 8}}),
            **some(draw, {"num_grads": 64, "damp": 1e-8, "fisher_block_size": 48}),
        },
        "LayerPruningModifier": lambda: {"layers": names(draw)},
        "DistillationModifier": lambda: {
            **some(draw, {"hardness": between(draw, 0, 1), "temperature": 5, "distill_output_keys": ["start_logits"]}),
            **both,
        },
        "PerLayerDistillationModifier": lambda: {
            **some(draw, {"gain": 2.5, "normalize": False, "project_features": False, "epsilon": 1e-5, **layers}),
            **both,
        },
        "QuantizationModifier": lambda: {
            "start_epoch": 1, **some(draw, draw.choice([legacy, scheme])),
            **some(draw, {"disable_quantization_observer_epoch": 2}),
        },
        "SparsificationLoggingModifier": lambda: {"update_frequency": 1},
    }[tag]()  # fmt: skip


def write_recipe(draw: random.Random) -> str:
    """The text of a recipe: a few tags, each once or twice; JSON is YAML."""
    tags = draw.choices(list(TAGS), k=draw.randint(1, 6))
    entries = []
    for tag in ["EpochRangeModifier", *tags]:
        entries += [f"  - !{tag} {json.dumps(fields_of(tag, draw))}"]
    return "\n".join(["variable: 1", "some_modifiers:", *entries, ""])


@pytest.mark.parametrize("seed", range(25))
def test_any_recipe_comes_back_equal(seed, tmp_path):
    text = write_recipe(random.Random(seed))
    plan = plan_of(read_recipe(text))
    if not plan.modifiers:
        text += '  - !SetLearningRateModifier {"learning_rate": 0.1}\n'
        plan = plan_of(read_recipe(text))
    new = compose_from(converted(tmp_path, text), "recipe=mine", "teacher=dense")
    assert list(new.recipe.modifiers.items()) == list(plan.modifiers.items())
    assert [type(each) for each in new.recipe.modifiers.values()] == [type(each) for each in plan.modifiers.values()]
    assert new.train.epochs == (plan.epochs or new.train.epochs)


def test_the_generator_writes_every_tag():
    written = "".join(write_recipe(random.Random(seed)) for seed in range(40))
    assert [tag for tag in TAGS if f"!{tag} " not in written] == []


# ---- what it says ----


def test_its_head_says_where_it_comes_from_and_how_it_is_run(tmp_path):
    (tmp_path / "old.yaml").write_text(TRAINS)
    lines = convert("old.yaml", "rate=1e-3").splitlines()
    assert lines[:3] == [
        "# @package _global_",
        "# From the SparseML recipe old.yaml with rate=0.001.",
        "#   python -m sparse_xp task=squad recipe=old",
    ]
    assert all(line.startswith("# ") for line in lines[3 : lines.index("defaults:")])
    assert "      init_lr: 0.001" in lines


def test_a_long_origin_keeps_its_lines_together(tmp_path):
    place = tmp_path / ("a" * 120) / "old.yaml"
    place.parent.mkdir()
    place.write_text(TRAINS)
    lines = convert(str(place)).splitlines()
    command = lines.index("#   python -m sparse_xp task=squad recipe=old")
    assert "".join(line.removeprefix("# ") for line in lines[1:command]).endswith("/old.yaml.")
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", ["file", "a b", "a/b", "-x", ""])
def test_a_name_that_no_group_could_have_is_refused(name, tmp_path):
    (tmp_path / "old me.yaml").write_text(TRAINS)
    if name:
        with pytest.raises(UserError, match="--name"):
            convert("old me.yaml", name=name)
    else:
        assert "recipe=old_me" in convert("old me.yaml")


def test_what_looks_like_an_interpolation_is_none():
    assert literal({"a": ["${x}", "\\${x}", "$x", 1]}) == {"a": ["\\${x}", "\\\\\\${x}", "$x", 1]}
