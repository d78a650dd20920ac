"""``show --model``: what the patterns of a recipe match in a model, and how sparse it will be.

The model is built from its configuration alone, on torch's meta device, which has no memory for weights. Only a recipe
that keeps the zeros of a checkpoint needs the weights: then they are read.

torch, transformers and the functions of tensors are imported late: importing this module must stay light.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparse_xp.console import silence_libraries
from sparse_xp.data.hub import is_local_checkpoint
from sparse_xp.errors import UserError
from sparse_xp.models.config_files import read_config
from sparse_xp.models.loading import load_model
from sparse_xp.modifiers import ACDCPruning, ConstantPruning, LayerPruning, Modifier
from sparse_xp.modifiers.gradual_pruning import GradualPruning
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.recipe.inherit import removed_layers
from sparse_xp.recipe.view.timeline import Timeline
from sparse_xp.recipe.zoo import STUB, find_model
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass
class PatternMatch:
    """The matches of one pattern: the number of tensors, their weights in all, and their abbreviated names."""

    modifier: str
    field: str
    pattern: str
    tensors: int
    weights: int
    names: list[str]


@dataclass
class Matches:
    """The matches of all patterns of a recipe in ``checkpoint``, and the fractions of zeros at the end of a run.

    ``sparsity``: of the targets of each pruning modifier; ``encoder``, ``model``: of all their weights.
    """

    checkpoint: str
    patterns: list[PatternMatch] = field(default_factory=list)
    sparsity: dict[str, float] = field(default_factory=dict)
    encoder: float = 0.0
    model: float = 0.0

    def lines(self) -> Iterable[str]:
        """Yield the lines of text that ``show`` prints."""
        yield f"in {self.checkpoint}:"
        for each in self.patterns:
            yield f"  {each.modifier}.{each.field} {each.pattern}: {each.tensors} tensors, {each.weights:,} weights"
            yield from (f"    {name}" for name in each.names)
        for name, level in self.sparsity.items():
            yield f"  sparsity at the end, targets of {name}: {level:.2%}"
        yield f"  sparsity at the end, encoder: {self.encoder:.2%}; whole model: {self.model:.2%}"


def match_patterns(line: Timeline, task: Task, checkpoint: str, zoo: str | None = None) -> Matches:
    """Return what the patterns of a recipe match in a model with the head of ``task``.

    ``zoo``: the user's own table of stubs. Raises UserError, as a run would, for a model that cannot be loaded and for
    a pattern that matches nothing.
    """
    from sparse_xp.functional.layers import bypass_layers, encoder_layers
    from sparse_xp.functional.selection import select_modules

    checkpoint = find_model(checkpoint, zoo) if checkpoint.startswith(STUB) else checkpoint
    model = build_model(task, checkpoint, with_weights=bool(line.of(ConstantPruning)))
    matches = Matches(checkpoint)
    # Layers go first, as in a run: the other patterns match in what is left.
    for name, layer_pruning in line.of(LayerPruning).items():
        layers = encoder_layers(model)
        matches.patterns += match_modules(name, "layers", layer_pruning.layers, layers)
        bypass_layers(model, select_modules(layers, layer_pruning.layers, "encoder layer"))
    for name, modifier in line.modifiers.items():
        for key in modifier.display.parameter_fields:
            matches.patterns += match_parameters(name, key, getattr(modifier, key) or [], modifier, model)
        for key in modifier.display.module_fields if not isinstance(modifier, LayerPruning) else ():
            modules = {path: module for path, module in model.named_modules() if path}
            matches.patterns += match_modules(name, key, getattr(modifier, key) or [], modules)
    zeros = expected_zeros(line, model, matches)
    parameters = dict(model.named_parameters())
    layers = encoder_layers(model)
    encoder = [p for name, p in parameters.items() if any(name.startswith(f"{layer}.") for layer in layers)]
    matches.encoder = zero_fraction(encoder, zeros)
    matches.model = zero_fraction(list(parameters.values()), zeros)
    return matches


def zero_fraction(parameters: list[nn.Parameter], zeros: dict[int, float]) -> float:
    """Return the fraction of zeros in all ``parameters``, given the zeros of each by its id."""
    total = sum(parameter.numel() for parameter in parameters)
    return sum(zeros.get(id(parameter), 0) for parameter in parameters) / total if total else 0.0


def build_model(task: Task, checkpoint: str, *, with_weights: bool) -> PreTrainedModel:
    """Return the model with the head of ``task``; without weights on the meta device."""
    import torch
    import transformers

    silence_libraries()
    is_local_checkpoint(checkpoint)
    if with_weights:
        return load_model(task, checkpoint, new_head=True, removed_layers=removed_layers(checkpoint))[0]
    config = read_config(checkpoint, None)
    if task.label_names:
        config.id2label = dict(enumerate(task.label_names))
    for key, value in task.model_options.items():
        setattr(config, key, value)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = getattr(transformers, task.model_class).from_config(config)
    except ValueError as error:
        raise UserError(f"{checkpoint}: {str(error).splitlines()[0]}") from error
    return model


def match_parameters(
    name: str, key: str, patterns: list[str], modifier: Modifier, model: nn.Module
) -> list[PatternMatch]:
    """Return what each pattern in field ``key`` of modifier ``name`` matches among the parameters.

    Raises UserError for one that matches nothing, unless the modifier allows it (``params_strict``).
    """
    from sparse_xp.functional.selection import select_parameters

    matches = []
    for pattern in patterns:
        try:
            hits = select_parameters(model, pattern, strict=getattr(modifier, "params_strict", True))
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        weights = sum(parameter.numel() for parameter in hits.values())
        matches.append(PatternMatch(name, key, pattern, len(hits), weights, abbreviate_names(hits)))
    return matches


def match_modules(name: str, key: str, patterns: list[str], modules: dict[str, nn.Module]) -> list[PatternMatch]:
    """Return what each pattern in field ``key`` of modifier ``name`` matches among ``modules``.

    Tensors and weights are those of the parameters in them. Raises UserError for a pattern that matches nothing.
    """
    from sparse_xp.functional.selection import select_modules

    matches = []
    for pattern in patterns:
        try:
            hits = select_modules(modules, [pattern])
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        # A parameter that two modules share counts once.
        parameters = {id(each): each for module in hits.values() for each in module.parameters()}
        weights = sum(each.numel() for each in parameters.values())
        matches.append(PatternMatch(name, key, pattern, len(parameters), weights, abbreviate_names(hits)))
    return matches


def expected_zeros(line: Timeline, model: nn.Module, matches: Matches) -> dict[int, float]:
    """Return how many zeros each pruned tensor will have, by its id; fill in ``matches.sparsity``.

    With ``global_sparsity`` the weights decide how zeros are divided among the tensors. Here they are divided evenly.
    """
    from sparse_xp.functional.selection import select_parameters
    from sparse_xp.functional.sparsity import count_zeros

    zeros: dict[int, float] = {}
    for name, modifier in line.of(Pruning).items():
        excluded = select_parameters(model, modifier.exclude)
        targets = {key: p for key, p in select_parameters(model, modifier.params).items() if key not in excluded}
        total = sum(parameter.numel() for parameter in targets.values())
        in_targets = 0.0
        for parameter in targets.values():
            if isinstance(modifier, GradualPruning | ACDCPruning):
                count = final_level(line, name, modifier) * parameter.numel()
                count = count if modifier.global_sparsity else float(round(count))
            else:  # ConstantPruning: the zeros that are there
                count = float(count_zeros(parameter))
            in_targets += count
            zeros[id(parameter)] = max(count, zeros.get(id(parameter), 0.0))
        matches.sparsity[name] = in_targets / total if total else 0.0
    return zeros


def final_level(line: Timeline, name: str, modifier: GradualPruning | ACDCPruning) -> float:
    """Return the sparsity of a scheduled pruning modifier in the last step; with an N:M pattern that of the pattern."""
    level = line.level(name, line.clock.total_steps - 1)
    assert level is not None  # where the weights decide the way, the end is a number all the same
    return 1 - float(modifier.pattern.n) / float(modifier.pattern.m) if level and modifier.pattern.m else level


def abbreviate_names(names: Iterable[str]) -> list[str]:
    """Return names that differ in their first number as one: ``bert.encoder.layer.{0-11}.output.dense.weight``."""
    groups: dict[str, list[int]] = {}
    for name in names:
        number = re.search(r"\d+", name)
        groups.setdefault(re.sub(r"\d+", "{}", name, count=1), []).extend([int(number[0])] if number else [])
    return [
        name.replace("{}", f"{{{number_ranges(numbers)}}}", 1) if numbers else name for name, numbers in groups.items()
    ]


def number_ranges(numbers: list[int]) -> str:
    """Return numbers as ranges: ``0-2,5`` for 0, 1, 2, 5."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
