"""What follows for a run from the CPU that its file is for: what 8 bits gain there, and whether to take them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.config import Config
from sparse_xp.console import say
from sparse_xp.costs import Size, even_sizes, least_cost, parameter_costs
from sparse_xp.cpu import KINDS, advice, this_cpu
from sparse_xp.errors import UserError
from sparse_xp.latency import Table, find_tables, is_file, read_tables
from sparse_xp.modifiers.quantization import Quantization
from sparse_xp.modifiers.structured_pruning import StructuredPruning

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def by_speed(config: Config) -> StructuredPruning | None:
    """The modifier that removes heads and neurons up to a speed, if there is one."""
    pruners = [each for each in config.modifiers().values() if isinstance(each, StructuredPruning)]
    return next((each for each in pruners if each.target_speedup is not None), None)


def makes_integers(config: Config) -> bool:
    """Whether the run, as it is configured, delivers a file of integers."""
    return any(isinstance(each, Quantization) for each in config.modifiers().values())


def is_open(latency: str) -> bool:
    """Whether a latency leaves it open if the file is of fp32 or of int8."""
    return len(read_tables(Path(latency))) > 1 if is_file(latency) else ":auto:" in latency


def start_note(config: Config) -> str | None:
    """What a person should know before a run makes integers, None if there is nothing to say.

    Raises UserError for a speed that would be measured here and is wanted on a CPU of another kind.
    """
    here, there = this_cpu(), config.export.target_cpu or this_cpu().kind
    pruner = by_speed(config)
    if pruner and pruner.latency and not is_file(pruner.latency) and there != here.kind:
        raise UserError(
            f"export.target_cpu={there}: sparsity.latency={pruner.latency} would be measured here, on {here.short}. "
            f"Measure it there, python -m sparse_xp.latency model=DIR latency={pruner.latency} out=FILE.json, and give "
            "sparsity.latency=FILE.json."
        )
    if not makes_integers(config) or KINDS[there].fast or (pruner and pruner.latency and is_open(pruner.latency)):
        return None
    where = here.short if there == here.kind else KINDS[there].told
    return f"8 bits on {where}: {advice(there)}"


def settled(config: Config, model: PreTrainedModel, cache: Path, before: bool | None) -> Config:
    """The configuration with fp32 or int8 chosen where its latency leaves that open.

    ``before``: whether the run, begun earlier, makes integers; it goes on as it began.
    """
    from sparse_xp.structured import full_shape, gone_layers, sizes_of

    pruner = by_speed(config)
    if not pruner or not pruner.latency or not makes_integers(config) or not is_open(pruner.latency):
        return config
    if before is None:
        sizes = sizes_of(model)
        tables = find_tables(pruner.latency, full_shape(model), cache)
        before = chosen(tables, sizes, len(sizes) + len(gone_layers(model)), pruner) == "int8"
    return config if before else without_integers(config)


def chosen(tables: list[Table], sizes: list[Size], layers: int, pruner: StructuredPruning) -> str:
    """``fp32`` or ``int8``: the one that keeps more weights at the wanted speed, the same share in every layer.

    Where both keep as many it is fp32, which costs no accuracy; where neither is fast enough, the faster one.
    """
    assert pruner.target_speedup is not None
    kept: dict[str, float] = {}
    for table in tables:
        costs, budget = table.costs(), table.dense(layers) / pruner.target_speedup
        least = least_cost(costs, sizes, pruner.multiple, pruner.layers)
        try:
            left = even_sizes(costs, sizes, budget, pruner.multiple)
            kept[table.spec.precision] = parameter_costs(table.shape).total(left) / layers
            told = f"{left[0][0]} heads and {left[0][1]} neurons a layer"
        except ValueError:
            kept[table.spec.precision] = -least / budget
            told = f"at most {table.dense(layers) / least:.2f} times"
        say(f"latency: {pruner.target_speedup:g} times the speed of dense fp32 in {table.spec.precision}: {told}")
    best = "int8" if kept["int8"] > kept["fp32"] else "fp32"
    say(f"latency: the run delivers {best}, on {tables[0].machine}")
    return best


def without_integers(config: Config) -> Config:
    """The same in floating point."""
    others = {name: each for name, each in config.recipe.modifiers.items() if not isinstance(each, Quantization)}
    return replace(config, quantization=None, recipe=replace(config.recipe, modifiers=others))
