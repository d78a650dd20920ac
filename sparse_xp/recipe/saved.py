"""``model/recipe.yaml``: the recipe that ran, beside the weights, in the dialect of SparseML.

A modifier is written under its SparseML tag where that says all of it, else under its own name (``!WeightDecay``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from sparse_xp.clock import Clock
from sparse_xp.modifiers import ConstantPruning, LayerPruning, Modifier, Quantization, ScheduledLearningRate
from sparse_xp.modifiers.base import OneTime
from sparse_xp.modifiers.pruning import GradualPruning
from sparse_xp.recipe.convert import Dumper
from sparse_xp.recipe.inherit import is_inherited
from sparse_xp.recipe.sparseml import Plan, plan_of
from sparse_xp.recipe.text import read_recipe
from sparse_xp.recipe.view.timeline import changed_fields


def says(same: str, **other: str) -> dict[str, str]:
    """The tag's name for each field of a modifier: the ``same``, or an``other``."""
    return {name: name for name in same.split()} | other


WINDOW = {"start": "start_epoch", "end": "end_epoch"}
GRADUAL = says(
    "params init_sparsity final_sparsity update_frequency inter_func mask_type global_sparsity leave_enabled", **WINDOW
)
#: for each modifier its tag, and the tag's name (and place in a mapping) for the fields that the tag has
TAG_OF: dict[str, tuple[str, dict[str, str]]] = {
    "LearningRate": (
        "LearningRateFunctionModifier",
        says("init_lr final_lr", shape="lr_func", cycle="cycle_epochs", **WINDOW),
    ),
    "ScheduledLearningRate": ("LearningRateModifier", says("lr_class lr_kwargs init_lr", **WINDOW)),
    "SetLearningRate": ("SetLearningRateModifier", says("learning_rate", start="start_epoch")),
    "WeightDecay": ("SetWeightDecayModifier", says("weight_decay", start="start_epoch")),
    "TrainableParams": ("TrainableParamsModifier", says("params trainable params_strict", **WINDOW)),
    "SetParam": ("SetParamModifier", says("params val params_strict", start="start_epoch")),
    "MagnitudePruning": ("GMPruningModifier", GRADUAL),
    "MovementPruning": ("MovementPruningModifier", GRADUAL),
    "OBSPruning": (
        "OBSPruningModifier",
        GRADUAL
        | says("num_grads damp fisher_block_size num_recomputations", grad_batch_size="grad_sampler_kwargs.batch_size"),
    ),
    "ConstantPruning": ("ConstantPruningModifier", says("params", **WINDOW)),
    "ACDCPruning": (
        "ACDCPruningModifier",
        says(
            "compression_sparsity params update_frequency global_sparsity leave_enabled momentum_buffer_reset",
            mask_type="mask_type",
            **WINDOW,
        ),
    ),
    "LayerPruning": ("LayerPruningModifier", says("layers")),
    "Distillation": (
        "DistillationModifier",
        says("hardness temperature", outputs="distill_output_keys", **WINDOW),
    ),
    "PerLayerDistillation": (
        "PerLayerDistillationModifier",
        says("gain normalize student_layer_names teacher_layer_names project_features epsilon", **WINDOW),
    ),
    "Quantization": (
        "QuantizationModifier",
        says(
            "submodules weight_bits activation_bits reduce_range",
            start="start_epoch",
            observers_end="disable_quantization_observer_epoch",
            embeddings="quantize_embeddings",
            embedding_outputs="quantize_embedding_activations",
            linear_outputs="quantize_linear_activations",
            exclude="exclude_module_types",
        ),
    ),
}


class Tag(dict[str, Any]):
    """The fields of a modifier under a tag."""

    def __init__(self, name: str, fields: dict[str, Any]):
        super().__init__(fields)
        self.name = name


Dumper.add_representer(Tag, lambda dumper, tag: dumper.represent_mapping(f"!{tag.name}", dict(tag)))


def write_recipe(
    modifiers: Mapping[str, Modifier], clock: Clock, base: Plan | None = None, metadata: dict[str, Any] | None = None
) -> str:
    """The text of a recipe with these modifiers, every time in epochs; behind the stages of ``base`` if there is one.

    It reads back to the same modifiers. As SparseML has it, the times of a composed recipe are those of all stages
    one after the other.
    """
    told: dict[str, Any] = {"version": "1.1.0"}
    if metadata:
        told["__metadata__"] = {"metadata": metadata}
    new = [in_epochs(each, clock) for name, each in modifiers.items() if not is_inherited(name)]
    if base is None:
        return dump(told | {"modifiers": tags(new, clock.end)})
    begin = base.epochs or 0.0
    stages: dict[str, list[Modifier]] = {}
    for name, each in base.modifiers.items():
        each = in_epochs(each, Clock.of(begin or 1.0, 1))
        stages.setdefault(base.sources[name].stage or "stage_0", []).append(ended(each, begin) if begin else each)
    number = len(stages)
    while f"stage_{number}" in stages:
        number += 1
    told |= {name: {f"{name}_modifiers": tags(each, begin)} for name, each in stages.items()}
    name = f"stage_{number}"
    return dump(told | {name: {f"{name}_modifiers": tags([shifted(each, begin) for each in new], begin + clock.end)}})


def dump(told: dict[str, Any]) -> str:
    """As YAML, the keys in their order."""
    return yaml.dump(told, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)


def in_epochs(modifier: Modifier, clock: Clock) -> Modifier:
    """The same with every time as epochs, but the end of the run, and a period of one step."""
    found: dict[str, Any] = {}
    for name in ("start", "end", "observers_end", "update_frequency", "cycle"):
        value = getattr(modifier, name, None)
        open_end = name == "end" and not isinstance(modifier, GradualPruning)  # gradual pruning says when it is done
        if isinstance(value, str) and not (open_end and clock.at(value) >= clock.end) and value != "1 steps":
            found[name] = clock.at(value)
    return replace(modifier, **found) if found else modifier


def whole(modifier: Modifier) -> bool:
    """Whether a modifier never ends, or happens once."""
    return isinstance(modifier, LayerPruning | Quantization | OneTime)


def ended(modifier: Modifier, end: float) -> Modifier:
    """One of an earlier stage: what would go on to the end of the run ends with the stage."""
    return replace(modifier, end=end) if modifier.end == "100%" and not whole(modifier) else modifier


def shifted(modifier: Modifier, by: float) -> Modifier:
    """The same so many epochs later."""
    if isinstance(modifier, LayerPruning) or modifier.late:
        return modifier
    found: dict[str, Any] = {"start": modifier.start + by}
    for name in ("end", "observers_end"):
        value = getattr(modifier, name, None)
        if value is not None and not isinstance(value, str):
            found[name] = value + by
    if isinstance(modifier, ConstantPruning):
        found["min_sparsity"] = 0.0  # the zeros are made in an earlier stage
    if isinstance(modifier, ScheduledLearningRate) and "milestones" in modifier.lr_kwargs:  # from the run's start
        milestones = [milestone + by for milestone in modifier.lr_kwargs["milestones"]]
        found["lr_kwargs"] = {**modifier.lr_kwargs, "milestones": milestones}
    return replace(modifier, **found)


def tags(modifiers: list[Modifier], end: float) -> list[Tag]:
    """Each under SparseML's tag if it reads back equal, else under its own name; before them the length of the run."""
    length = Tag("EpochRangeModifier", {"start_epoch": 0.0, "end_epoch": end})
    found = [tag_of(each) for each in modifiers]
    read = plan_of(read_recipe(dump({"modifiers": [length, *found]}))).modifiers.values()
    pairs = zip(modifiers, read, found, strict=True)
    return [length, *(tag if each == back else own_tag(each) for each, back, tag in pairs)]


def tag_of(modifier: Modifier) -> Tag:
    """The tag of SparseML, with as much as it can say; of a modifier that SparseML had not, its own."""
    if type(modifier).__name__ not in TAG_OF:
        return own_tag(modifier)
    name, names = TAG_OF[type(modifier).__name__]
    fields: dict[str, Any] = {}
    for ours, theirs in names.items():
        value = getattr(modifier, ours)
        if value is None or (ours == "cycle" and modifier.shape != "cyclic_linear"):  # type: ignore[attr-defined]
            continue
        outer, _, inner = theirs.partition(".")
        value = -1 if isinstance(value, str) and value in ("100%", "1 steps") else value
        fields[outer] = {inner: value} if inner else value
    return Tag(name, fields)


def own_tag(modifier: Modifier) -> Tag:
    """The modifier's own name and fields."""
    return Tag(type(modifier).__name__, changed_fields(modifier))
