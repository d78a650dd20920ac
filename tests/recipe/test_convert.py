"""``convert``: what it prints composes to the same modifiers, and trains to the same weights."""

from __future__ import annotations

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
from sparse_xp.recipe.convert import convert_recipe
from sparse_xp.recipe.file import resolve
from sparse_xp.recipe.parsed import parse_modifiers
from sparse_xp.recipe.tags import TAGS
from sparse_xp.recipe.tags_own import escaped
from sparse_xp.recipe.text import read_recipe
from sparse_xp.recipe.zoo import FILES
from sparse_xp.run import run
from tests.recipe.random_recipes import random_recipe
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
    (folder / "recipe" / f"{name}.yaml").write_text(convert_recipe(source, name=name, **options), encoding="utf-8")
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
    # SparseML's eval_loss had the distillation term in it; no loss is among what runs are compared by.
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


@pytest.mark.parametrize("seed", range(25))
def test_any_recipe_comes_back_equal(seed, tmp_path):
    text = random_recipe(random.Random(seed))
    plan = parse_modifiers(read_recipe(text))
    if not plan.modifiers:
        text += '  - !SetLearningRateModifier {"learning_rate": 0.1}\n'
        plan = parse_modifiers(read_recipe(text))
    new = compose_from(converted(tmp_path, text), "recipe=mine", "teacher=dense")
    assert list(new.recipe.modifiers.items()) == list(plan.modifiers.items())
    assert [type(each) for each in new.recipe.modifiers.values()] == [type(each) for each in plan.modifiers.values()]
    assert new.train.epochs == (plan.epochs or new.train.epochs)


def test_the_generator_writes_every_tag():
    written = "".join(random_recipe(random.Random(seed)) for seed in range(40))
    assert [tag for tag in TAGS if f"!{tag} " not in written] == []


# ---- what it says ----


def test_its_head_says_where_it_comes_from_and_how_it_is_run(tmp_path):
    (tmp_path / "old.yaml").write_text(TRAINS)
    lines = convert_recipe("old.yaml", "rate=1e-3").splitlines()
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
    lines = convert_recipe(str(place)).splitlines()
    command = lines.index("#   python -m sparse_xp task=squad recipe=old")
    assert "".join(line.removeprefix("# ") for line in lines[1:command]).endswith("/old.yaml.")
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", ["file", "a b", "a/b", "-x", ""])
def test_a_name_that_no_group_could_have_is_refused(name, tmp_path):
    (tmp_path / "old me.yaml").write_text(TRAINS)
    if name:
        with pytest.raises(UserError, match="--name"):
            convert_recipe("old me.yaml", name=name)
    else:
        assert "recipe=old_me" in convert_recipe("old me.yaml")


def test_what_looks_like_an_interpolation_is_none():
    assert escaped({"a": ["${x}", "\\${x}", "$x", 1]}) == {"a": ["\\${x}", "\\\\\\${x}", "$x", 1]}
