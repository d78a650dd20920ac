"""``recipe=file recipe.path=FILE``: a SparseML recipe sets the modifiers and the length of a run.

``resolve`` comes after composing (``compose.to_object``): stubs of the zoo are looked up, the recipe's modifiers go
into the configuration, and then those that the checkpoint's own recipe adds (``inherit``).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sparse_xp.clock import Clock
from sparse_xp.config import Config, Teacher, drives_rate
from sparse_xp.errors import UserError
from sparse_xp.modifiers import ConstantPruning, Distillation, Modifier, PerLayerDistillation, WeightDecay
from sparse_xp.recipe.check import STEPS_PER_EPOCH, check_zoo, in_order, load_recipe
from sparse_xp.recipe.inherit import inherit
from sparse_xp.recipe.parsed import ParsedRecipe
from sparse_xp.recipe.zoo import STUB, find_model
from sparse_xp.settings import Model, TinyModel

#: the zeros of the tiny model for a recipe that keeps zeros without saying how many
START_SPARSITY = 0.8


def resolve(config: Config) -> Config:
    """Return the configuration with stubs replaced and with the modifiers of ``recipe.path``. Raises UserError."""
    config = with_zoo_paths(config)
    recipe = config.recipe
    if recipe.path is None:
        if recipe.name == "file":
            raise UserError(
                "recipe=file needs recipe.path=FILE: a SparseML recipe (.md, .yaml), its text, or a zoo: stub."
            )
        return with_inherited(config)
    source, parsed = load_recipe(recipe.path, recipe.args, strict=recipe.strict, anchors=recipe.anchors, zoo=config.zoo)
    # Impossible windows are reported now, before data are loaded and the steps of an epoch are known.
    in_order(source, parsed, Clock.of(parsed.epochs or config.train.epochs, STEPS_PER_EPOCH))
    name = "recipe" if "\n" in source else Path(source).stem
    return with_inherited(with_recipe(config, parsed, name))


def with_zoo_paths(config: Config) -> Config:
    """Return the configuration with what stubs of models (``zoo:...``) stand for now. Raises UserError."""
    model, teacher = config.model, config.teacher
    for path in (model.checkpoint, teacher.path):
        check_zoo(path, config.zoo)
    if model.checkpoint and model.checkpoint.startswith(STUB):
        model = replace(model, checkpoint=find_model(model.checkpoint, config.zoo))
    if teacher.path and teacher.path.startswith(STUB):
        teacher = replace(teacher, path=find_model(teacher.path, config.zoo))
    return replace(config, model=model, teacher=teacher)


def with_inherited(config: Config) -> Config:
    """Return the configuration with the modifiers that the recipe of the checkpoint adds."""
    if not config.recipe.inherit:
        return config
    inherited, new_remarks = inherit(config.model.checkpoint, config.modifiers().values())
    if not inherited and not new_remarks:
        return config
    recipe = config.recipe
    modifiers, remarks = {**recipe.modifiers, **inherited}, [*recipe.remarks, *new_remarks]
    return replace(config, recipe=replace(recipe, modifiers=modifiers, remarks=remarks))


def with_recipe(config: Config, parsed: ParsedRecipe, name: str) -> Config:
    """Return the configuration with the modifiers and the length of a recipe. ``name``: of the recipe.

    A learning rate or a weight decay of the recipe replaces that of the configuration. Raises UserError for a recipe
    that distils without a teacher.
    """
    recipe, remarks = config.recipe, list(parsed.remarks)
    modifiers, teacher = match_teacher(config.teacher, dict(parsed.modifiers), name, remarks)
    model, start_sparsity = match_start(config, modifiers, name, remarks)
    if parsed.epochs and parsed.epochs != config.train.epochs:
        remarks.append(f"{name} sets {parsed.epochs:g} epochs, in place of train.epochs={config.train.epochs:g}")
    return replace(
        config,
        model=model,
        recipe=replace(
            recipe,
            start_sparsity=start_sparsity,
            name=name if recipe.name == "file" else recipe.name,
            learning_rate={} if any(map(drives_rate, modifiers.values())) else recipe.learning_rate,
            weight_decay=None if any(isinstance(m, WeightDecay) for m in modifiers.values()) else recipe.weight_decay,
            modifiers={**recipe.modifiers, **modifiers},
            remarks=remarks,
        ),
        teacher=replace(teacher, distillation=None),
        train=replace(config.train, epochs=parsed.epochs or config.train.epochs),
    )


def match_teacher(
    teacher: Teacher, modifiers: dict[str, Modifier], name: str, remarks: list[str]
) -> tuple[dict[str, Modifier], Teacher]:
    """Return modifiers and teacher that fit each other, and add what was left out to ``remarks``.

    Without a teacher (teacher=disable) no modifier distils; a recipe that does not distil needs no teacher. Raises
    UserError for a recipe that distils and no choice of a teacher.
    """
    distilling = [key for key, each in modifiers.items() if isinstance(each, Distillation | PerLayerDistillation)]
    if distilling and teacher.source == "none":
        raise UserError(
            f"{name} distils, and no teacher is given: teacher=dense (trained first where there is none), "
            "teacher=checkpoint teacher.path=DIR, or teacher=disable to train without it."
        )
    if distilling and not teacher.given:
        remarks.append(f"{name}: {', '.join(distilling)} left out (teacher=disable)")
        modifiers = {key: each for key, each in modifiers.items() if key not in distilling}
    if teacher.given and not distilling:
        remarks.append(f"{name} does not distil: teacher={teacher.source} is not used")
        teacher = replace(teacher, source="none", path=None)
    return modifiers, teacher


def match_start(config: Config, modifiers: dict[str, Modifier], name: str, remarks: list[str]) -> tuple[Model, float]:
    """Return the model and ``recipe.start_sparsity`` for these modifiers.

    A recipe that keeps zeros needs a model that has some: the tiny model is made with them.
    """
    model, start_sparsity = config.model, config.recipe.start_sparsity
    if any(isinstance(each, ConstantPruning) and each.min_sparsity for each in modifiers.values()):
        start_sparsity = start_sparsity or START_SPARSITY
        if isinstance(model, TinyModel) and not model.checkpoint and not model.sparsity:
            model = replace(model, sparsity=start_sparsity)
            remarks.append(
                f"{name} keeps zeros: the tiny model is made with {start_sparsity:.0%} of them (recipe.start_sparsity)"
            )
    return model, start_sparsity
