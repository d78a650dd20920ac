"""``check``: whether a recipe of SparseML can be run, without a model.

``load_recipe`` is the way in for all who read recipes: check, show, convert and ``recipe=file``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers.modifier_list import ModifierList, WindowError
from sparse_xp.recipe.loader import RecipeError, read_mapping
from sparse_xp.recipe.parsed import ParsedRecipe, parse_modifiers
from sparse_xp.recipe.text import read_recipe
from sparse_xp.recipe.zoo import STUB, find_recipe
from sparse_xp.settings import Train

#: steps of an epoch before the data are known: enough that no schedule of a real recipe falls between two steps
STEPS_PER_EPOCH = 5000


def load_recipe(
    source: str, args: object = None, *, strict: bool = False, anchors: bool = False, zoo: str | None = None
) -> tuple[str, ParsedRecipe]:
    """Return the file that ``source`` names (a path, a stub, or the text of a recipe), and its modifiers.

    ``args``, ``strict``, ``anchors``: as for ``read_recipe``. ``zoo``: the user's own table of stubs. Raises UserError.
    """
    check_zoo(source, zoo)
    path = find_recipe(source, zoo)
    return path, parse_modifiers(read_recipe(path, args, strict=strict, anchors=anchors))


def check_zoo(source: str | None, zoo: str | None) -> None:
    """Raise UserError if ``source`` is a stub and the user's own table of stubs cannot be read."""
    if zoo and source and source.startswith(STUB):
        read_mapping(Path(zoo))


def check_recipes(sources: list[str], args: object, *, strict: bool, anchors: bool, zoo: str | None) -> None:
    """Print a line for each recipe that can be run. The others follow on standard error, and in the UserError.

    It is raised after the last recipe, with the message of the last wrong one, and names its file, line and column.
    """
    errors = []
    for source in sources:
        try:
            path, parsed = load_recipe(source, args, strict=strict, anchors=anchors, zoo=zoo)
            in_order(path, parsed, Clock.of(parsed.epochs or Train().epochs, STEPS_PER_EPOCH))
        except UserError as error:
            errors.append(str(error))
            continue
        count = f"{len(parsed.modifiers)} modifier{'s' * (len(parsed.modifiers) != 1)}"
        length = f"{parsed.epochs:g} epochs" if parsed.epochs else "no length"
        print(f"{'recipe' if chr(10) in source else source}: ok, {count}, {length}")
    if errors:
        for message in errors[:-1]:
            print(message, file=sys.stderr)
        raise UserError(errors[-1])


def in_order(path: str, parsed: ParsedRecipe, clock: Clock) -> ModifierList:
    """Return the modifiers in the order of a run of this length. Raises RecipeError if a window is impossible in it.

    ``path``: of the recipe, for messages.
    """
    try:
        return ModifierList(parsed.modifiers, clock)
    except WindowError as error:
        message = error.reason if error.other_name else f"{error.modifier_name}: {error.reason}"
        names = {error.modifier_name, error.other_name}
        position = parsed.sources[error.modifier_name].positions[""]
        raise RecipeError(path, position, message + variables_hint(parsed, names)) from error


def variables_hint(parsed: ParsedRecipe, names: set[str | None]) -> str:
    """Return a sentence on the variables of the recipe that the times of these modifiers come from, or ``""``."""
    origins = [
        f"{name}'s {field} is {' and '.join(tagged.variables[field])}"
        for name, tagged in parsed.sources.items()
        if name in names
        for field in ("start_epoch", "end_epoch", "disable_quantization_observer_epoch")
        if tagged.variables.get(field)
    ]
    return f" In the recipe {', '.join(origins)}: change them together (recipe.args)." if origins else ""
