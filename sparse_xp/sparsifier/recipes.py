"""The modifiers of a loop of one's own: from a recipe of SparseML, one of ours by its name, or Python objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra

from sparse_xp.compose import to_object
from sparse_xp.config import Config, RecipeSettings, drives_rate, recipe_names, register
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.modifiers import (
    MODIFIERS,
    AttentionDistillation,
    Distillation,
    Modifier,
    PerLayerDistillation,
    WeightDecay,
)
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.modifiers.scheduled_learning_rate import is_number
from sparse_xp.places import CONF
from sparse_xp.recipe.check import load_recipe
from sparse_xp.recipe.zoo import STUB

#: what may stand for a recipe: a name, a file, a stub or text of SparseML's; or modifiers, by name if a mapping
RecipeSource: TypeAlias = "str | Path | Modifier | Iterable[Modifier] | Mapping[str, Modifier] | LoopRecipe"

#: the modifiers that compare the model with a teacher
DISTILLING = (Distillation, PerLayerDistillation, AttentionDistillation)
#: what a recipe may be, for messages
EXPECTED = (
    "expected the name of a recipe, a file, the text of a recipe of SparseML, or modifiers such as "
    "[MagnitudePruning(final_sparsity=0.8)] (from sparse_xp.modifiers)"
)
#: the keywords of ``Sparsifier`` that are no numbers of a recipe, to suggest them
ARGUMENTS = (
    "steps_per_epoch", "epochs", "teacher", "batches", "loss_function", "distillation", "max_grad_norm", "scaler",
    "seed",
)  # fmt: skip
#: what people write for a keyword
ALSO = {"lr": "learning_rate", "num_epochs": "epochs", "num_train_epochs": "epochs"}
#: groups of the configuration whose keys belong to a recipe; others are settings of the command's own loop
OF_RECIPES = ("recipe.", "sparsity.", "quantization.", "teacher.distillation.", "train.learning_rate", "train.warmup")
#: numbers of a named recipe that are not in the group ``recipe``, by the keyword of the loop
KEYS = {
    "learning_rate": "train.learning_rate",
    "warmup": "train.warmup",
    "weight_decay": "recipe.weight_decay.weight_decay",
    "hardness": "teacher.distillation.hardness",
    "temperature": "teacher.distillation.temperature",
}
#: groups that a named recipe may choose another option of, by a keyword with a text
GROUPS = ("sparsity", "quantization")


@dataclass
class LoopRecipe:
    """The modifiers of a loop by name.

    ``epochs``: the length that the recipe gives the loop, None if it gives none. ``has_fixed_length``: whether its
    times are epochs, so that a shorter loop does not finish it; otherwise they are parts of the loop.
    """

    name: str
    modifiers: dict[str, Modifier]
    epochs: float | None = None
    has_fixed_length: bool = False
    remarks: list[str] = field(default_factory=list)

    @property
    def distilling(self) -> list[str]:
        """The names of the modifiers that need a teacher."""
        return [name for name, modifier in self.modifiers.items() if isinstance(modifier, DISTILLING)]

    @property
    def compares_logits(self) -> bool:
        """Whether a modifier compares logits with a teacher's."""
        return any(isinstance(modifier, Distillation) for modifier in self.modifiers.values())

    @property
    def distilling_hidden(self) -> list[str]:
        """The names of the modifiers that compare layers inside the model with the teacher's."""
        return [name for name in self.distilling if not isinstance(self.modifiers[name], Distillation)]

    @property
    def needs_batches(self) -> bool:
        """Whether a modifier asks for training data of its own beside the loop."""
        return any(modifier.needs_batches for modifier in self.modifiers.values())

    @property
    def compared_outputs(self) -> tuple[str, ...]:
        """The names of outputs that are compared with a teacher's, none where the logits are."""
        chosen = [modifier.outputs for modifier in self.modifiers.values() if isinstance(modifier, Distillation)]
        return () if None in chosen else tuple(dict.fromkeys(name for names in chosen for name in names or ()))

    def without_distillation(self) -> LoopRecipe:
        """Return the recipe without the modifiers that need a teacher."""
        kept = {name: modifier for name, modifier in self.modifiers.items() if name not in self.distilling}
        return replace(self, modifiers=kept)


def read_loop_recipe(recipe: RecipeSource, numbers: Mapping[str, Any]) -> LoopRecipe:
    """Return the modifiers of ``recipe``. Raises UserError.

    ``numbers``: by keyword, what to change in a named recipe, or the variables of a recipe of SparseML's.
    """
    if isinstance(recipe, LoopRecipe):
        return replace(recipe, modifiers=copied(recipe.modifiers))
    if isinstance(recipe, str | Path):
        source = str(recipe)
        return named_recipe(source, numbers) if source in recipe_names() else recipe_of_sparseml(source, numbers)
    if numbers:
        name = next(iter(numbers))
        raise UserError(
            f"{name}={numbers[name]}: modifiers given as objects have their numbers already: set it there."
            f"{did_you_mean(name, ARGUMENTS)}"
        )
    return LoopRecipe("recipe", copied(recipe))


def copied(modifiers: Modifier | Iterable[Modifier] | Mapping[str, Modifier]) -> dict[str, Modifier]:
    """Return copies of modifiers by name; by class where none is given. Raises UserError for anything else."""
    if isinstance(modifiers, Modifier):
        modifiers = [modifiers]
    if not isinstance(modifiers, Iterable):
        raise UserError(f"recipe={modifiers!r}: {EXPECTED}.")
    named: dict[str, Modifier] = {}
    pairs = modifiers.items() if isinstance(modifiers, Mapping) else ((None, each) for each in modifiers)
    for given, modifier in pairs:
        if not isinstance(modifier, Modifier):
            raise UserError(f"{modifier!r} is no modifier: {EXPECTED}.")
        kind = type(modifier).__name__
        alike = sum(name.partition(" ")[0] == kind for name in named)
        # A copy: the state of a modifier belongs to one loop.
        named[given or (f"{kind} {alike + 1}" if alike else kind)] = replace(modifier)
    if not named:
        raise UserError("The recipe has no modifiers: a list such as [MagnitudePruning(final_sparsity=0.8)] is wanted.")
    return named


def recipe_of_sparseml(source: str, numbers: Mapping[str, Any]) -> LoopRecipe:
    """Return the modifiers of a file, a stub, or the text of a recipe. ``numbers``: values of its variables."""
    is_text = "\n" in source
    if not is_text and not source.startswith(STUB) and not Path(source).exists():
        raise UserError(
            f"recipe={source}: there is no such file"
            + (
                "."
                if Path(source).suffix
                else f", and no recipe of this name.{did_you_mean(source, recipe_names())} Recipes: "
                f"{', '.join(sorted(recipe_names()))}."
            )
        )
    _, parsed = load_recipe(source, dict(numbers), strict=True)
    name = "recipe" if is_text else Path(source).name
    return LoopRecipe(name, parsed.modifiers, parsed.epochs, has_fixed_length=True, remarks=parsed.remarks)


def named_recipe(name: str, numbers: Mapping[str, Any]) -> LoopRecipe:
    """Return the modifiers of ``conf/recipe/NAME.yaml`` with other numbers.

    Learning rate and weight decay belong to the loop, unless the recipe has segments of its own or ``numbers`` name
    them. So does the length, unless it is a number in the recipe.
    """
    written = yaml.safe_load((CONF / f"recipe/{name}.yaml").read_text(encoding="utf-8"))
    config = composed_config([f"recipe={name}", *(override(name, *item) for item in numbers.items())])
    keeps_rate = {"override /schedule": "linear"} not in written["defaults"] or "learning_rate" in numbers
    keeps_decay = "weight_decay" in written["recipe"] or "weight_decay" in numbers
    modifiers = {
        key.removeprefix("recipe.modifiers.").removeprefix("recipe."): modifier
        for key, modifier in config.modifiers().items()
        if (keeps_rate or not drives_rate(modifier)) and (keeps_decay or not isinstance(modifier, WeightDecay))
    }
    if not modifiers:
        raise UserError(f"recipe={name} has nothing to do in a loop of your own: it prunes and quantizes nothing.")
    epochs = written.get("train", {}).get("epochs")
    return LoopRecipe(name, modifiers, float(epochs) if isinstance(epochs, int | float) else None)


def override(recipe: str, keyword: str, value: object) -> str:
    """Return an override of the configuration for a keyword. Raises UserError for one that means nothing."""
    if keyword in GROUPS and not (keyword == "sparsity" and is_number(value)):
        return f"{keyword}={option_of(keyword, value)}"
    if keyword in KEYS and keyword != "warmup" and not is_number(value):
        raise UserError(f"{keyword}={value!r}: expected a number.")
    settings = [item.name for item in fields(RecipeSettings)]
    of_pruning = {item.name for kind in MODIFIERS.values() if issubclass(kind, Pruning) for item in fields(kind)}
    if "." in keyword:
        if not keyword.startswith(OF_RECIPES):
            raise UserError(
                f"{keyword}={value}: this is a setting of the command's own loop, and has no effect in another. Of a "
                f"recipe are: {', '.join(OF_RECIPES)}."
            )
        key = keyword
    elif keyword in KEYS:
        key = KEYS[keyword]
    elif keyword in settings:
        key = f"recipe.{keyword}"
    elif keyword in of_pruning:
        key = f"sparsity.{keyword}"
    else:
        known = [*KEYS, *GROUPS, *settings, *of_pruning, *ARGUMENTS]
        meant = f" Did you mean '{ALSO[keyword]}'?" if keyword in ALSO else did_you_mean(keyword, known)
        raise UserError(
            f"{keyword}={value}: recipe {recipe} has no such number.{meant} Keys of the configuration can be given "
            "whole: **{'sparsity.update_frequency': 0.1}."
        )
    return f"{key}={as_override(value)}"


def option_of(group: str, value: object) -> str:
    """Return the option of a group that a keyword names. Raises UserError for one that there is not."""
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if value in options:
        return str(value)
    number = "a number such as 0.9, or " * (group == "sparsity")
    near = did_you_mean(str(value), options)
    raise UserError(f"{group}={value!r}: expected {number}one of {', '.join(options)}.{near}")


def as_override(value: object) -> str:
    """Return a value in the grammar of Hydra's overrides."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_override(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_override, value)) + "]"
    if isinstance(value, int | float):
        return repr(value)
    return "'" + str(value).replace("'", "\\'") + "'"


def composed_config(overrides: list[str]) -> Config:
    """Return the configuration of a command with these words. An application of Hydra may be running around it."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        register()
        with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="sparsifier"):
            cfg = hydra.compose("config", overrides=[*overrides, "recipe.inherit=false"])
        return to_object(cfg, overrides)
    except hydra.errors.HydraException as error:
        raise UserError(str(error).partition("\n")[0]) from error
    finally:
        GlobalHydra.instance().hydra = outer
