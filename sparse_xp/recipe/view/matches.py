"""``show --model``: what the patterns of a recipe match in a model, and how sparse it will be.

The model is built from its configuration alone, without memory for its weights, unless the recipe keeps the zeros that
a checkpoint has: then its weights are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparse_xp.errors import UserError
from sparse_xp.modifiers import ConstantPruning, LayerPruning
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.recipe.view.timeline import Timeline
from sparse_xp.recipe.zoo import STUB, find_model
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from torch import nn

#: fields that name parameters, and fields that name modules
PARAMETERS, MODULES = ("params", "but"), ("layers", "submodules", "student_layer_names")


@dataclass
class Match:
    """What one pattern of a modifier matches: so many tensors of so many weights in all, and their names in short."""

    modifier: str
    field: str
    pattern: str
    tensors: int
    weights: int
    names: list[str]


@dataclass
class Matches:
    """All patterns, and the fractions of zeros at the end; ``sparsity``: of what each pruning modifier targets."""

    checkpoint: str
    patterns: list[Match] = field(default_factory=list)
    sparsity: dict[str, float] = field(default_factory=dict)
    encoder: float = 0.0
    model: float = 0.0

    def lines(self) -> Iterable[str]:
        """For a person."""
        yield f"in {self.checkpoint}:"
        for each in self.patterns:
            yield f"  {each.modifier}.{each.field} {each.pattern}: {each.tensors} tensors, {each.weights:,} weights"
            yield from (f"    {name}" for name in each.names)
        for name, level in self.sparsity.items():
            yield f"  sparsity at the end, targets of {name}: {level:.2%}"
        yield f"  sparsity at the end, encoder: {self.encoder:.2%}; whole model: {self.model:.2%}"


def examine(line: Timeline, task: Task, checkpoint: str, zoo: str | None = None) -> Matches:
    """Raises UserError for a model that cannot be had and for a pattern that matches nothing, as a run would."""
    from sparse_xp.functional.layers import bypass, encoder_layers, select_modules

    place = find_model(checkpoint, zoo) if checkpoint.startswith(STUB) else checkpoint
    model = build(task, place, bool(line.of(ConstantPruning)))
    found = Matches(place)
    for name, modifier in line.of(LayerPruning).items():
        layers = encoder_layers(model)
        found.patterns += of_modules(name, "layers", modifier.layers, layers)
        bypass(model, select_modules(layers, modifier.layers, "encoder layer"))
    for name, modifier in line.modifiers.items():
        for key in PARAMETERS:
            found.patterns += of_parameters(name, key, getattr(modifier, key, None) or [], modifier, model)
        for key in MODULES if not isinstance(modifier, LayerPruning) else ():
            modules = {path: module for path, module in model.named_modules() if path}
            found.patterns += of_modules(name, key, getattr(modifier, key, None) or [], modules)
    zeros = zeros_at_the_end(line, model, found)
    everything = dict(model.named_parameters())
    inside = {n: p for n, p in everything.items() if any(n.startswith(f"{x}.") for x in encoder_layers(model))}
    for key, parameters in (("encoder", inside), ("model", everything)):
        total = sum(parameter.numel() for parameter in parameters.values())
        setattr(found, key, sum(zeros.get(id(p), 0) for p in parameters.values()) / total if total else 0.0)
    return found


def build(task: Task, checkpoint: str, weights: bool) -> nn.Module:
    """The model with the head of ``task``; without ``weights`` on the meta device."""
    import torch
    import transformers

    from sparse_xp.console import hush_libraries
    from sparse_xp.data.hub import is_local
    from sparse_xp.models.loading import load_model, read_config
    from sparse_xp.recipe.inherit import removed_layers

    hush_libraries()
    is_local(checkpoint)
    if weights:
        return load_model(task, checkpoint, new_head=True, removed_layers=removed_layers(checkpoint))[0]
    config = read_config(checkpoint, None)
    if task.label_names:
        config.id2label = dict(enumerate(task.label_names))
    for key, value in task.model_options.items():
        setattr(config, key, value)
    try:
        with torch.device("meta"):
            model: nn.Module = getattr(transformers, task.model_class).from_config(config)
    except ValueError as error:
        raise UserError(f"{checkpoint}: {str(error).splitlines()[0]}") from error
    return model


def of_parameters(name: str, key: str, patterns: list[str], modifier: Any, model: nn.Module) -> list[Match]:
    """What each pattern matches among the parameters."""
    from sparse_xp.functional.masks import select_parameters

    found = []
    for pattern in patterns:
        try:
            hits = select_parameters(model, pattern, strict=getattr(modifier, "params_strict", True))
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        weights = sum(parameter.numel() for parameter in hits.values())
        found.append(Match(name, key, pattern, len(hits), weights, in_short(hits)))
    return found


def of_modules(name: str, key: str, patterns: list[str], modules: dict[str, nn.Module]) -> list[Match]:
    """What each pattern matches among modules, and the tensors in them."""
    from sparse_xp.functional.layers import select_modules

    found = []
    for pattern in patterns:
        try:
            hits = select_modules(modules, [pattern])
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        inside = {id(each): each for module in hits.values() for each in module.parameters()}
        weights = sum(each.numel() for each in inside.values())
        found.append(Match(name, key, pattern, len(inside), weights, in_short(hits)))
    return found


def zeros_at_the_end(line: Timeline, model: nn.Module, found: Matches) -> dict[int, float]:
    """How many zeros each pruned tensor will have, by its id; fills in ``found.sparsity``.

    One threshold over several tensors divides the zeros among them as their weights will have it: here evenly.
    """
    from sparse_xp.functional.masks import select_parameters
    from sparse_xp.functional.masks import zeros as count

    zeros: dict[int, float] = {}
    for name, modifier in line.of(Pruning).items():
        left_out = select_parameters(model, modifier.but)
        targets = {key: p for key, p in select_parameters(model, modifier.params).items() if key not in left_out}
        total = sum(parameter.numel() for parameter in targets.values())
        own = 0.0
        for parameter in targets.values():
            if isinstance(modifier, ConstantPruning):
                made = float(count(parameter))
            else:
                made = final_level(line, name, modifier) * parameter.numel()
                made = made if modifier.global_sparsity else float(round(made))
            own += made
            zeros[id(parameter)] = max(made, zeros.get(id(parameter), 0.0))
        found.sparsity[name] = own / total if total else 0.0
    return zeros


def final_level(line: Timeline, name: str, modifier: Any) -> float:
    """The sparsity that a scheduled pruning modifier has in the last step."""
    level = line.level(name, line.clock.total_steps - 1)
    assert level is not None  # of the modifiers of which weights decide, these end at a number
    return 1 - float(modifier.pattern.n) / float(modifier.pattern.m) if level and modifier.pattern.m else level


def in_short(names: Iterable[str]) -> list[str]:
    """Names that differ in one number in one line: ``bert.encoder.layer.{0-11}.output.dense.weight``."""
    groups: dict[str, list[int]] = {}
    for name in names:
        number = re.search(r"\d+", name)
        groups.setdefault(re.sub(r"\d+", "{}", name, count=1), []).extend([int(number[0])] if number else [])
    return [shape.replace("{}", f"{{{ranges(numbers)}}}", 1) if numbers else shape for shape, numbers in groups.items()]


def ranges(numbers: list[int]) -> str:
    """``0-2,5`` of 0, 1, 2, 5."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
