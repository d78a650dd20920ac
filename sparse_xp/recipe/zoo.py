"""Stubs of the SparseZoo (``zoo:nlp/.../pruned90-none?recipe_type=...``): what they named, and where it is now."""

from __future__ import annotations

from pathlib import Path

import yaml

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.places import CONF

STUB = "zoo:"
NEAREST = "nearest:"
#: recipes of the zoo that were printed, or made up for lost ones
FILES = Path(__file__).parent / "files"


def find_model(stub: str, own: str | None = None) -> str:
    """The hub id or directory of the model that a stub named. ``own``: a table that goes before conf/zoo.yaml.

    Raises UserError if there is none.
    """
    return _find("models", stub, stub.partition("?")[0], own)


def find_recipe(source: str, own: str | None = None) -> str:
    """The file of the recipe that a stub named, or ``source`` if it is none. Raises UserError if there is none."""
    if not source.startswith(STUB):
        return source
    path = _find("recipes", source, source.replace("?recipe=", "?recipe_type="), own)
    return path if Path(path).exists() else str(FILES / path)


def table(kind: str, own: str | None) -> dict[str, str]:
    """The known stubs of a kind (``models``, ``recipes``) without their ``zoo:``, and what they stand for now."""
    found: dict[str, str] = {}
    for path in filter(None, (str(CONF / "zoo.yaml"), own)):
        try:
            read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"zoo={path}: {getattr(error, 'strerror', None) or error}") from error
        if not isinstance(read, dict) or not all(isinstance(each, dict) for each in read.values()):
            raise UserError(f"zoo={path}: want 'models:' and 'recipes:', each with 'STUB: PLACE' lines.")
        found |= {str(stub).removeprefix(STUB): str(place) for stub, place in read.get(kind, {}).items()}
    return found


def _find(kind: str, stub: str, key: str, own: str | None) -> str:
    known = table(kind, own)
    found = known.get(key.removeprefix(STUB), "")
    if found and not found.startswith(NEAREST):
        return found
    what = kind.removesuffix("s")
    nearest = (
        f"the nearest is {found.removeprefix(NEAREST).strip()}." if found else "conf/zoo.yaml has no place for it."
    )
    hint = "" if found else did_you_mean(key.removeprefix(STUB), known)
    raise UserError(
        f"{stub}: the SparseZoo was switched off in 2025. This {what} has no public copy; {nearest}{hint} "
        f"Give a {what} of your own in place of the stub, or zoo=FILE with a line for it, such as conf/zoo.yaml has."
    )
