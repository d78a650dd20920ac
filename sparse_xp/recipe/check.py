"""``check``: whether a recipe of SparseML can be run, without a model."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers.hooks import Recipe
from sparse_xp.recipe.loader import RecipeError, read_mapping
from sparse_xp.recipe.sparseml import Plan, plan_of
from sparse_xp.recipe.text import read_recipe
from sparse_xp.recipe.zoo import STUB, find_recipe
from sparse_xp.settings import Train

#: enough that no schedule of a real recipe falls between two steps
STEPS_PER_EPOCH = 5000


def read_plan(
    source: str, args: Any = None, *, strict: bool = False, anchors: bool = False, zoo: str | None = None
) -> tuple[str, Plan]:
    """The file that ``source`` names, and what it comes to. Raises UserError."""
    check_zoo(source, zoo)
    path = find_recipe(source, zoo)
    return path, plan_of(read_recipe(path, args, strict=strict, anchors=anchors))


def check_zoo(source: str | None, zoo: str | None) -> None:
    """Raise UserError if ``source`` is a stub and the user's own table of them is no mapping."""
    if zoo and source and source.startswith(STUB):
        read_mapping(Path(zoo))


def check(sources: list[str], args: Any, *, strict: bool, anchors: bool, zoo: str | None) -> None:
    """Say of each recipe that it can be run. Raises UserError after the last, with file, line and column of those that
    cannot."""
    wrong = []
    for source in sources:
        try:
            path, plan = read_plan(source, args, strict=strict, anchors=anchors, zoo=zoo)
            timed(path, plan, Clock.of(plan.epochs or Train().epochs, STEPS_PER_EPOCH))
        except UserError as error:
            wrong.append(str(error))
            continue
        count = f"{len(plan.modifiers)} modifier{'s' * (len(plan.modifiers) != 1)}"
        length = f"{plan.epochs:g} epochs" if plan.epochs else "no length"
        print(f"{'recipe' if chr(10) in source else source}: ok, {count}, {length}")
    if wrong:
        for told in wrong[:-1]:
            print(told, file=sys.stderr)
        raise UserError(wrong[-1])


def timed(path: str, plan: Plan, clock: Clock) -> Recipe:
    """The modifiers in the order of a run of this length. Raises RecipeError if their windows cannot be."""
    try:
        return Recipe(plan.modifiers, clock)
    except UserError as error:  # it begins with the name of a modifier
        name = str(error).split()[0].rstrip(":")
        said = str(error).replace(f"{name}: {type(plan.modifiers[name]).__name__}: ", f"{name}: ")
        raise RecipeError(path, plan.sources[name].places[""], f"{said}{say_variables(plan, said)}") from error


def say_variables(plan: Plan, message: str) -> str:
    """The variables of the recipe that the times of the modifiers in ``message`` come from."""
    found = [
        f"{name}'s {field} is {' and '.join(tagged.variables[field])}"
        for name, tagged in plan.sources.items()
        if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", message)
        for field in ("start_epoch", "end_epoch", "disable_quantization_observer_epoch")
        if tagged.variables.get(field)
    ]
    return f" In the recipe {', '.join(found)}: change them together (recipe.args)." if found else ""
