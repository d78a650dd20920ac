"""A modifier under its own name (``!WeightDecay``): what no tag of SparseML can express, written and read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields as dataclass_fields

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sparse_xp.modifiers import MODIFIERS, Modifier
from sparse_xp.modifiers.display import changed_fields
from sparse_xp.recipe.expressions import as_number
from sparse_xp.recipe.fields import Fields
from sparse_xp.recipe.loader import TaggedMapping


def read_own(fields: Fields) -> Iterable[Modifier]:
    """Return the modifier of this name. Its fields are those of its class. Raises RecipeError."""
    kind = MODIFIERS[fields.tagged.name]
    fields.known |= {each.name for each in dataclass_fields(kind)}
    values = {name: fields.untaken.pop(name) for name in list(fields.untaken) if name in fields.known}
    for name in ("start", "end"):
        fields.times += [time] if (time := as_number(values.get(name))) else []
    try:
        # OmegaConf checks the types, as it does for the groups of conf/.
        settings = OmegaConf.merge(OmegaConf.structured(kind), escaped(values))
        yield OmegaConf.to_object(settings)  # type: ignore[misc]
    except OmegaConfBaseException as error:
        key, text = str(error.key or ""), str(error).splitlines()[0]
        raise fields.error(key, text if key else f"!{fields.tagged.name}: {text}") from error


def write_own(modifier: Modifier) -> TaggedMapping:
    """Return the modifier under its own name, with the fields that are not at their defaults."""
    return TaggedMapping(type(modifier).__name__, changed_fields(modifier))


def escaped(value: object) -> object:
    """Return ``value`` with ``${`` escaped in each text, which OmegaConf would take for an interpolation."""
    if isinstance(value, dict):
        return {key: escaped(child) for key, child in value.items()}
    if isinstance(value, list):
        return [escaped(child) for child in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
    return value
