"""``model/recipe.yaml``: the recipe that ran, beside the weights, in the dialect of SparseML.

A modifier is written under its SparseML tag if that tag can express it, else under its own name (``!WeightDecay``).
The written text is parsed again to decide which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from sparse_xp.clock import Clock
from sparse_xp.modifiers import (
    ConstantPruning,
    LayerPruning,
    Modifier,
    Quantization,
    ScheduledLearningRate,
    WeightDecay,
)
from sparse_xp.modifiers.base import OneTime
from sparse_xp.modifiers.gradual_pruning import GradualPruning
from sparse_xp.recipe.convert import Dumper
from sparse_xp.recipe.inherit import is_calibrated, is_inherited
from sparse_xp.recipe.loader import TaggedMapping
from sparse_xp.recipe.parsed import ParsedRecipe, parse_modifiers
from sparse_xp.recipe.tags import TAG_OF_MODIFIER
from sparse_xp.recipe.tags_own import write_own
from sparse_xp.recipe.text import read_recipe

#: the times of a modifier that count from the start of the run, which a later stage has later
POINTS = ("start", "end", "observers_end", "refresh_until", "warmup", "ramp_start", "ramp_end")
#: the times of a modifier that are a period
PERIODS = ("update_frequency", "cycle")

Dumper.add_representer(TaggedMapping, lambda dumper, tag: dumper.represent_mapping(f"!{tag.name}", tag.fields))


def write_recipe(
    modifiers: Mapping[str, Modifier],
    clock: Clock,
    base: ParsedRecipe | None = None,
    metadata: dict[str, object] | None = None,
) -> str:
    """Return the text of a recipe with these modifiers, every time in epochs. It reads back to the same modifiers.

    ``base``: the recipe of the checkpoint that the run started from. Its stages come first, and the run is one more
    stage behind them. As in SparseML, times of such a composed recipe count from the start of its first stage.
    ``metadata`` is written at the top of a recipe without ``base``.
    """
    content: dict[str, object] = {"version": "1.1.0"}
    if metadata:
        content["__metadata__"] = {"metadata": metadata}
    new = [in_epochs(each, clock) for name, each in modifiers.items() if not is_inherited(name)]
    if base is None:
        return dump(content | {"modifiers": written_tags(new, clock.end)})
    begin = base.epochs or 0.0
    stages = stages_of(base)
    number = len(stages)
    while f"stage_{number}" in stages:
        number += 1
    content |= {name: {f"{name}_modifiers": written_tags(each, begin)} for name, each in stages.items()}
    last = [shifted(each, begin) for each in new]
    content[f"stage_{number}"] = {f"stage_{number}_modifiers": written_tags(last, begin + clock.end)}
    return dump(content)


def stages_of(base: ParsedRecipe) -> dict[str, list[Modifier]]:
    """Return the modifiers of each stage of an earlier recipe, with times in epochs that end with it.

    A recipe without stages is one stage, ``stage_0``.
    """
    length = base.epochs or 0.0
    stages: dict[str, list[Modifier]] = {}
    for name, modifier in base.modifiers.items():
        modifier = in_epochs(modifier, Clock.of(length or 1.0, 1))
        stage = stages.setdefault(base.sources[name].stage or "stage_0", [])
        stage.append(ended(modifier, length) if length else modifier)
    return stages


def dump(content: dict[str, object]) -> str:
    """Return ``content`` as YAML, the keys in their order."""
    return yaml.dump(content, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)


def in_epochs(modifier: Modifier, clock: Clock) -> Modifier:
    """Return a copy with its times in epochs.

    Two times stay unchanged, because the dialect writes them as -1: an end that is the end of the run, and a period of
    one step.
    """
    changes: dict[str, Any] = {}
    for name in (*POINTS, *PERIODS):
        value = getattr(modifier, name, None)
        # GradualPruning needs an explicit end epoch (SparseML has no default for it).
        open_end = name == "end" and not isinstance(modifier, GradualPruning)
        every_step = name == "update_frequency" and value == "1 steps"
        if isinstance(value, str) and not (open_end and clock.to_epochs(value) >= clock.end) and not every_step:
            changes[name] = clock.to_epochs(value)
    return replace(modifier, **changes) if changes else modifier


def never_ends(modifier: Modifier) -> bool:
    """Return whether a modifier has no end of its own: its effect is permanent, or it acts once."""
    return isinstance(modifier, LayerPruning | Quantization | OneTime)


def has_no_times(modifier: Modifier) -> bool:
    """Return whether a modifier acts outside of the training steps: before the first, or after the last."""
    return isinstance(modifier, LayerPruning) or is_calibrated(modifier)


def ended(modifier: Modifier, end: float) -> Modifier:
    """Return a modifier of an earlier stage, which ends with its stage and not with the run.

    A weight decay holds until another is set (``parsed.end_at_the_next``), which its tag cannot say.
    """
    if isinstance(modifier, WeightDecay):
        return replace(modifier, end="100%")
    return replace(modifier, end=end) if modifier.end == "100%" and not never_ends(modifier) else modifier


def shifted(modifier: Modifier, by: float) -> Modifier:
    """Return a copy that acts ``by`` epochs later. Its times are in epochs (``in_epochs``)."""
    if has_no_times(modifier):
        return modifier
    changes: dict[str, Any] = {}
    for name in POINTS:
        value = getattr(modifier, name, None)
        if value is not None and not isinstance(value, str):
            changes[name] = value + by
    if isinstance(modifier, ConstantPruning):
        changes["min_sparsity"] = 0.0  # an earlier stage makes the zeros
    if isinstance(modifier, ScheduledLearningRate) and "milestones" in modifier.lr_kwargs:  # from the run's start
        milestones = [milestone + by for milestone in modifier.lr_kwargs["milestones"]]
        changes["lr_kwargs"] = {**modifier.lr_kwargs, "milestones": milestones}
    return replace(modifier, **changes)


def written_tags(modifiers: list[Modifier], end: float) -> list[TaggedMapping]:
    """Return the length of the run, then each modifier: under SparseML's tag if that reads back equal."""
    length = TaggedMapping("EpochRangeModifier", {"start_epoch": 0.0, "end_epoch": end})
    tags = [sparseml_tag(each) for each in modifiers]
    read_back = parse_modifiers(read_recipe(dump({"modifiers": [length, *tags]}))).modifiers.values()
    triples = zip(modifiers, read_back, tags, strict=True)
    return [length, *(tag if modifier == read else write_own(modifier) for modifier, read, tag in triples)]


def sparseml_tag(modifier: Modifier) -> TaggedMapping:
    """Return SparseML's tag with the fields it has, or the modifier's own name if SparseML had no such modifier."""
    row = TAG_OF_MODIFIER.get(type(modifier).__name__)
    return write_own(modifier) if row is None else row.write(modifier)
