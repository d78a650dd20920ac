"""``recipe=file recipe.path=FILE``: a SparseML recipe takes the place of the modifiers and the length of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sparse_xp.clock import Clock
from sparse_xp.config import Config, drives_rate
from sparse_xp.errors import UserError
from sparse_xp.modifiers import ConstantPruning, Distillation, PerLayerDistillation, WeightDecay
from sparse_xp.recipe.check import STEPS_PER_EPOCH, check_zoo, read_plan, timed
from sparse_xp.recipe.inherit import inherit
from sparse_xp.recipe.sparseml import Plan
from sparse_xp.recipe.zoo import STUB, find_model
from sparse_xp.settings import TinyModel

#: the zeros of the tiny model for a recipe that keeps zeros and does not say how many
START_SPARSITY = 0.8


def resolve(config: Config) -> Config:
    """The configuration with stubs of the zoo looked up and the modifiers of ``recipe.path`` in their place."""
    model, teacher = config.model, config.teacher
    for place in (model.checkpoint, teacher.path):
        check_zoo(place, config.zoo)
    if model.checkpoint and model.checkpoint.startswith(STUB):
        model = replace(model, checkpoint=find_model(model.checkpoint, config.zoo))
    if teacher.path and teacher.path.startswith(STUB):
        teacher = replace(teacher, path=find_model(teacher.path, config.zoo))
    config = replace(config, model=model, teacher=teacher)
    if config.recipe.path is None:
        if config.recipe.name == "file":
            raise UserError(
                "recipe=file needs recipe.path=FILE: a SparseML recipe (.md, .yaml), its text, or a zoo: stub."
            )
        return with_checkpoint(config)
    recipe = config.recipe
    source, plan = read_plan(
        recipe.path or "", recipe.args, strict=recipe.strict, anchors=recipe.anchors, zoo=config.zoo
    )
    timed(source, plan, Clock.of(plan.epochs or config.train.epochs, STEPS_PER_EPOCH))  # before data are loaded
    name = "recipe" if "\n" in source else Path(source).stem
    return with_checkpoint(with_plan(config, plan, name))


def with_checkpoint(config: Config) -> Config:
    """The configuration with what the recipe of the checkpoint asks of it."""
    found, remarks = inherit(config.model.checkpoint, config.modifiers().values())
    if not found and not remarks:
        return config
    recipe = config.recipe
    modifiers, remarks = {**recipe.modifiers, **found}, [*recipe.remarks, *remarks]
    return replace(config, recipe=replace(recipe, modifiers=modifiers, remarks=remarks))


def with_plan(config: Config, plan: Plan, name: str) -> Config:
    """The configuration with the modifiers and the length that ``plan`` has."""
    recipe, teacher, modifiers, remarks = config.recipe, config.teacher, dict(plan.modifiers), list(plan.remarks)
    distils = [key for key, each in modifiers.items() if isinstance(each, Distillation | PerLayerDistillation)]
    if distils and teacher.source == "none":
        raise UserError(
            f"{name} distils, and no teacher is given: teacher=dense (trained first where there is none), "
            "teacher=checkpoint teacher.path=DIR, or teacher=disable to train without it."
        )
    if distils and not teacher.given:
        remarks.append(f"{name}: {', '.join(distils)} left out (teacher=disable)")
        modifiers = {key: each for key, each in modifiers.items() if key not in distils}
    if teacher.given and not distils:
        remarks.append(f"{name} does not distil: teacher={teacher.source} is not used")
        teacher = replace(teacher, source="none", path=None)
    model, start = config.model, recipe.start_sparsity
    if any(isinstance(each, ConstantPruning) and each.min_sparsity for each in modifiers.values()):
        start = start or START_SPARSITY
        if isinstance(model, TinyModel) and not model.checkpoint and not model.sparsity:
            model = replace(model, sparsity=start)
            remarks.append(
                f"{name} keeps zeros: the tiny model is made with {start:.0%} of them (recipe.start_sparsity)"
            )
    if plan.epochs and plan.epochs != config.train.epochs:
        remarks.append(f"{name} sets {plan.epochs:g} epochs, in place of train.epochs={config.train.epochs:g}")
    return replace(
        config,
        model=model,
        recipe=replace(
            recipe,
            start_sparsity=start,
            name=name if recipe.name == "file" else recipe.name,
            learning_rate={} if any(map(drives_rate, modifiers.values())) else recipe.learning_rate,
            weight_decay=None if any(isinstance(m, WeightDecay) for m in modifiers.values()) else recipe.weight_decay,
            modifiers={**recipe.modifiers, **modifiers},
            remarks=remarks,
        ),
        teacher=replace(teacher, distillation=None),
        train=replace(config.train, epochs=plan.epochs or config.train.epochs),
    )
