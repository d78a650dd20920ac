"""From the tags of a recipe to modifiers: ``ParsedRecipe`` is what checking, showing, converting and running read.

``text.read_recipe`` comes before (text to tags with plain values), ``check.in_order`` after (modifiers on the clock of
a run).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sparse_xp.errors import did_you_mean
from sparse_xp.modifiers import MODIFIERS, ConstantPruning, LayerPruning, Modifier, TrainableParams, WeightDecay
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.recipe.expressions import as_number
from sparse_xp.recipe.fields import Fields
from sparse_xp.recipe.loader import RecipeError, TaggedMapping
from sparse_xp.recipe.tags import TAGS, UNSUPPORTED_TAGS
from sparse_xp.recipe.tags_own import read_own
from sparse_xp.recipe.text import Document


@dataclass
class ParsedRecipe:
    """The modifiers of a recipe by name, in its order.

    ``sources``: the tag that each modifier comes from, by the modifier's name. ``epochs``: the length that the recipe
    gives a run, None if it gives none. ``remarks``: what a person should know of how it was read.
    """

    modifiers: dict[str, Modifier] = field(default_factory=dict)
    sources: dict[str, TaggedMapping] = field(default_factory=dict)
    epochs: float | None = None
    remarks: list[str] = field(default_factory=list)


def parse_modifiers(document: Document) -> ParsedRecipe:
    """Return the modifiers of a recipe. Raises RecipeError for an unknown tag, and for a field that is wrong."""
    parsed = ParsedRecipe(remarks=list(document.remarks))
    times: list[tuple[float, TaggedMapping]] = []
    for tagged in document.modifiers:
        fields = Fields(document.name, tagged)
        modifiers = read_tag(fields)
        times += [(time, tagged) for time in fields.times if time > -1]
        parsed.remarks += [remark for remark in fields.remarks if remark not in parsed.remarks]
        for modifier in modifiers:
            name = unused_name(tagged.name.removesuffix("Modifier"), parsed.modifiers)
            parsed.modifiers[name], parsed.sources[name] = modifier, tagged
    set_length(parsed, document.name, times)
    refuse_layers_that_return(parsed, document.name)
    join_removed_layers(parsed)
    expect_zeros_in_checkpoint(parsed)
    end_at_the_next(parsed)
    return parsed


def read_tag(fields: Fields) -> list[Modifier]:
    """Return the modifiers of one tag; several where it prunes to several levels. Raises RecipeError."""
    tag = fields.tagged.name
    if reason := UNSUPPORTED_TAGS.get(tag):
        raise fields.error("", f"!{tag}: {reason}")
    if tag not in TAGS and tag not in MODIFIERS:
        raise fields.error("", f"unknown modifier !{tag}.{did_you_mean(tag, TAGS)} Known: {', '.join(TAGS)}")
    read = TAGS[tag].read if tag in TAGS else read_own
    try:
        modifiers = list(read(fields))
    except ValueError as error:
        raise fields.error("", f"!{tag}: {error}") from error
    fields.check_all_taken()
    return modifiers


def set_length(parsed: ParsedRecipe, name: str, times: list[tuple[float, TaggedMapping]]) -> None:
    """Set the length of the run to the last of all ``times``, in whole epochs.

    As in SparseML, the end of an EpochRangeModifier does not shorten the run. ``name``: of the recipe.
    """
    last, latest = max(times, key=lambda pair: pair[0], default=(0.0, None))
    parsed.epochs = float(math.ceil(last)) if last > 0 else None
    stated = max((time for time, tagged in times if tagged.name == "EpochRangeModifier"), default=last)
    if latest and stated < last:
        parsed.remarks.append(
            f"{Path(name).name}: EpochRangeModifier ends at {stated:g}, but {latest.name} is in epoch "
            f"{last:g}: the run has {math.ceil(last)} epochs, as in SparseML"
        )


def expect_zeros_in_checkpoint(parsed: ParsedRecipe) -> None:
    """Set ``min_sparsity=0`` where another modifier creates the zeros, or where pruning starts later.

    If a recipe holds zeros from the first step on and creates none, they must be in the checkpoint. Its ConstantPruning
    modifiers keep their ``min_sparsity`` and refuse a dense checkpoint.
    """
    pruning = [each for each in parsed.modifiers.values() if isinstance(each, Pruning)]
    makes_zeros = any(not isinstance(each, ConstantPruning) for each in pruning)
    for name, modifier in parsed.modifiers.items():
        sparseml = parsed.sources[name].name == "ConstantPruningModifier"  # under its own name it has a min_sparsity
        if isinstance(modifier, ConstantPruning) and sparseml and (makes_zeros or modifier.start != 0):
            parsed.modifiers[name] = replace(modifier, min_sparsity=0.0)


def refuse_layers_that_return(parsed: ParsedRecipe, name: str) -> None:
    """Raise RecipeError for layers that are removed until an epoch inside the run. ``name``: of the recipe.

    Not in a stage: SparseML wrote the end of the stage there, and the layers stayed away.
    """
    for key, modifier in parsed.modifiers.items():
        tagged = parsed.sources[key]
        end = as_number(tagged.fields.get("end_epoch"))
        if isinstance(modifier, LayerPruning) and not tagged.stage and end and 0 < end < (parsed.epochs or 0.0):
            raise RecipeError(
                name,
                tagged.positions["end_epoch"],
                f"!{tagged.name}: end_epoch: {end:g} is inside the run of {parsed.epochs:g} epochs, and removed layers "
                "do not come back; leave it out",
            )


def join_removed_layers(parsed: ParsedRecipe) -> None:
    """Make one LayerPruning of several: all of them act for the whole run."""
    removed = {name: each.layers for name, each in parsed.modifiers.items() if isinstance(each, LayerPruning)}
    first, *others = [*removed, ""]
    for name in filter(None, others):
        del parsed.modifiers[name], parsed.sources[name]
    if first:
        layers = dict.fromkeys(layer for names in removed.values() for layer in names)
        parsed.modifiers[first] = LayerPruning(layers=list(layers))


def end_at_the_next(parsed: ParsedRecipe) -> None:
    """End each setting that has no end of its own where the next one of the same resource begins.

    A weight decay holds until another is set, and so does what TrainableParamsModifier says of the same parameters.
    """
    settings = {
        name: each
        for name, each in parsed.modifiers.items()
        if isinstance(each, WeightDecay | TrainableParams) and isinstance(each.start, int | float)
    }
    for name, each in settings.items():
        later = [
            other.start
            for other in settings.values()
            if other.exclusive_resource == each.exclusive_resource and other.start > each.start
        ]
        if each.end == "100%" and later:
            parsed.modifiers[name] = replace(each, end=float(min(later)))


def unused_name(name: str, used: Iterable[str]) -> str:
    """Return ``name``, with a number behind it if it is used already."""
    number, candidate = 2, name
    while candidate in used:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
