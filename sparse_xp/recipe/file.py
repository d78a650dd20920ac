"""``recipe=file recipe.path=FILE``: a SparseML recipe takes the place of the modifiers and the length of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sparse_xp.config import Config, drives_rate
from sparse_xp.errors import UserError
from sparse_xp.modifiers import Distillation, PerLayerDistillation, WeightDecay
from sparse_xp.recipe.sparseml import Plan, plan_of
from sparse_xp.recipe.text import read_recipe
from sparse_xp.recipe.zoo import STUB, find_model, find_recipe


def resolve(config: Config) -> Config:
    """The configuration with stubs of the zoo looked up and the modifiers of ``recipe.path`` in their place."""
    model, teacher = config.model, config.teacher
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
        return config
    source = find_recipe(config.recipe.path, config.zoo)
    plan = plan_of(read_recipe(source, config.recipe.args, strict=config.recipe.strict, anchors=config.recipe.anchors))
    name = "recipe" if "\n" in source else Path(source).stem
    return with_plan(config, plan, name)


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
    if plan.epochs and plan.epochs != config.train.epochs:
        remarks.append(f"{name} sets {plan.epochs:g} epochs, in place of train.epochs={config.train.epochs:g}")
    return replace(
        config,
        recipe=replace(
            recipe,
            name=name if recipe.name == "file" else recipe.name,
            learning_rate={} if any(map(drives_rate, modifiers.values())) else recipe.learning_rate,
            weight_decay=None if any(isinstance(m, WeightDecay) for m in modifiers.values()) else recipe.weight_decay,
            modifiers={**recipe.modifiers, **modifiers},
            remarks=remarks,
        ),
        teacher=replace(teacher, distillation=None),
        train=replace(config.train, epochs=plan.epochs or config.train.epochs),
    )
