"""The reference of the configuration: every key that can be typed is in it, as the dataclasses have it."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields, is_dataclass

import pytest
from omegaconf import MISSING as REQUIRED

from sparse_xp.command_help import help_text
from sparse_xp.config import Config, RecipeSettings, Teacher
from sparse_xp.configuration import group_options, keys_of, sections
from sparse_xp.modifiers import MODIFIERS
from sparse_xp.places import CONF, GROUPS
from sparse_xp.reference import reference
from sparse_xp.settings import Data, Export, Log, Model, TinyModel, Train
from sparse_xp.tasks import TASKS

CLASSES = [
    *(Config, Teacher, RecipeSettings, Data, Export, Log, Model, TinyModel, Train),
    *TASKS.values(),
    *MODIFIERS.values(),
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_field_has_a_type_a_default_and_a_meaning(kind):
    keys = {key.path: key for key in keys_of(kind.__name__, "")}
    assert list(keys) == [field.name for field in fields(kind)]
    for field in fields(kind):
        key = keys[field.name]
        assert re.match(r"[A-Z`|(]|\d", key.meaning), field.name
        assert key.meaning.endswith("."), field.name
        assert "\n" not in key.summary
        assert key.type
        assert key.default == default_of(field), field.name


def default_of(field: Field) -> str:
    """The default as a command line has it."""
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    if value is MISSING or value is REQUIRED or is_dataclass(value):
        return ""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace("'", "") or '""'


def test_the_reference_has_every_key_that_can_be_composed():
    paths = {key.path for section in sections() for key in section.keys}
    for field in fields(Config):
        assert field.name in paths or any(path.startswith(f"{field.name}.") for path in paths)
    kinds = {section.kind for section in sections()}
    assert {*MODIFIERS, *TASKS} <= kinds | {"Modifier"}


def test_every_option_says_what_it_is():
    for group in GROUPS:
        for option in group_options(group):
            assert option.meaning, f"{group}={option.name}"


def test_the_page_is_up_to_date():
    page = CONF.parent / "docs" / "configuration.md"
    if page.exists():
        message = "run: python -m sparse_xp.reference > docs/configuration.md"
        assert page.read_text(encoding="utf-8") == reference() + "\n", message


def test_help_about_an_option_has_what_it_sets_and_its_keys():
    text, found = help_text(["sparsity=gradual"])
    assert found
    assert "  sets final_sparsity=${recipe.sparsity}" in text
    assert "  sparsity.init_sparsity (any, 0.0)  The fraction of zeros at start." in text
    text, _ = help_text(["recipe=pruned80"])
    assert "model=bert_base_pruned80 sparsity=locked teacher=dense" in text


@pytest.mark.parametrize(
    ("words", "hit"),
    [
        (["hardness"], "teacher.distillation.hardness"),
        (["TRAIN.WARMUP=5%"], "train.warmup"),
        (["+recipe.modifiers.name.trainable"], "recipe.modifiers.NAME.trainable"),
        (["doc_stride"], "task.doc_stride"),
        (["distillation", "loss"], "teacher.distillation.hardness"),
    ],
)
def test_help_finds(words, hit):
    text, found = help_text(words)
    assert found
    assert f"  {hit} (" in text
