"""Stubs of the SparseZoo (``zoo:nlp/.../pruned90-none?recipe_type=...``), and where their models and recipes are now.

``conf/zoo.yaml`` is the table; the user's own table (``zoo=FILE``) takes precedence.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.places import CONF

STUB = "zoo:"
#: how an entry of the table begins that only suggests something similar
NEAREST = "nearest:"
#: recipes of the zoo that are printed in papers and documents, or written anew for lost ones
FILES = Path(__file__).parent / "files"


def find_model(stub: str, own: str | None = None) -> str:
    """Return the hub id or directory of the model that a stub names. ``own``: the user's table of stubs.

    Raises UserError if there is no public copy.
    """
    return _find("models", stub, stub.partition("?")[0], own)


def find_recipe(source: str, own: str | None = None) -> str:
    """Return the file of the recipe that a stub names; ``source`` itself if it is no stub. Raises UserError."""
    if not source.startswith(STUB):
        return source
    path = _find("recipes", source, source.replace("?recipe=", "?recipe_type="), own)
    return path if Path(path).exists() else str(FILES / path)


def read_stubs(kind: str, own: str | None) -> dict[str, str]:
    """Return the stubs of a kind (``models``, ``recipes``) without ``zoo:``, and what each stands for now.

    Raises UserError for a table that cannot be read.
    """
    stubs: dict[str, str] = {}
    for path in filter(None, (str(CONF / "zoo.yaml"), own)):
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"zoo={path}: {getattr(error, 'strerror', None) or error}") from error
        if not isinstance(content, dict) or not all(isinstance(entries, dict) for entries in content.values()):
            raise UserError(f"zoo={path}: expected 'models:' and 'recipes:', each with 'STUB: PATH' lines.")
        stubs |= {str(stub).removeprefix(STUB): str(target) for stub, target in content.get(kind, {}).items()}
    return stubs


def _find(kind: str, stub: str, key: str, own: str | None) -> str:
    """Return the target of ``key``. Raises UserError, which quotes the ``stub`` as written, if it has none."""
    stubs = read_stubs(kind, own)
    target = stubs.get(key.removeprefix(STUB), "")
    if target and not target.startswith(NEAREST):
        return target
    singular = kind.removesuffix("s")
    if target:
        advice = f"the nearest is {target.removeprefix(NEAREST).strip()}."
    else:
        name = key.removeprefix(STUB)
        stem = name.partition("?")[0]
        types = [each.removeprefix(stem) for each in stubs if each.startswith(f"{stem}?")]
        near = f" It has lines for this stub with {', '.join(types)}." if types else did_you_mean(name, stubs)
        advice = f"conf/zoo.yaml has no line for it.{near}"
    raise UserError(
        f"{stub}: the SparseZoo was switched off in 2025. This {singular} has no public copy; {advice} "
        f"Give a {singular} of your own in place of the stub, or zoo=FILE with a line for it, such as conf/zoo.yaml "
        "has."
    )
