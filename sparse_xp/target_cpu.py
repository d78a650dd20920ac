"""What follows for a run from the CPU that its file is for: what 8 bits gain there, and whether to take them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.config import Config
from sparse_xp.console import say
from sparse_xp.cpu import KINDS, advice, this_cpu
from sparse_xp.errors import UserError
from sparse_xp.functional.cost_model import Size, even_sizes, least_cost, parameter_costs
from sparse_xp.latency import TABLES, Table, is_file, read_tables, tables_of_run
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
    if not is_file(latency):
        return ":auto:" in latency
    return len({table.spec.precision for table in read_tables(Path(latency))}) > 1


def start_note(config: Config, directory: Path) -> str | None:
    """What a person should know before a run makes integers, None if there is nothing to say.

    Raises UserError for a speed that would be measured here, and not in ``directory`` before, and is wanted on a CPU of
    another kind.
    """
    here, there = this_cpu(), config.export.target_cpu or this_cpu().kind
    pruner = by_speed(config)
    measures = pruner and pruner.latency and not is_file(pruner.latency) and not (directory / TABLES).is_file()
    if pruner and measures and there != here.kind:
        raise UserError(
            f"export.target_cpu={there}: sparsity.latency={pruner.latency} would be measured here, on {here.short}. "
            f"Measure it there, python -m sparse_xp.latency model=DIR latency={pruner.latency} out=FILE.json, and give "
            "sparsity.latency=FILE.json."
        )
    if not makes_integers(config) or KINDS[there].fast or (pruner and pruner.latency and is_open(pruner.latency)):
        return None
    where = here.short if there == here.kind else KINDS[there].told
    return f"8 bits on {where}: {advice(there)}"


def settled(config: Config, model: PreTrainedModel, directory: Path, cache: Path, before: bool | None) -> Config:
    """The configuration with fp32 or int8 chosen where its latency leaves that open; ``directory`` keeps its tables.

    ``before``: whether the run, begun earlier, makes integers, None if it was not begun. It goes on as it began, on
    whatever CPU.
    """
    from sparse_xp.functional.factored_embeddings import find
    from sparse_xp.functional.structured import full_shape, gone_layers, sizes_of

    pruner = by_speed(config)
    if not pruner or not pruner.latency:
        return config
    if before is None and os.environ.get("RANK", "0") == "0":  # the first process of the run for all
        (directory / TABLES).unlink(missing_ok=True)  # of a run that was configured otherwise, and never began
    tables = tables_of_run(directory, pruner.latency, full_shape(model), cache)
    if len({table.spec.precision for table in tables}) == 1 or not makes_integers(config):
        return config
    if before is None:
        sizes, factored = sizes_of(model), find(model)
        dimensions = None if factored is None else factored.last
        before = chosen(tables, sizes, len(sizes) + len(gone_layers(model)), pruner, dimensions) == "int8"
    return config if before else without_integers(config)


def chosen(
    tables: list[Table], sizes: list[Size], layers: int, pruner: StructuredPruning, dimensions: int | None = None
) -> str:
    """``fp32`` or ``int8``: the one that keeps more weights at the wanted speed, the same share in every layer.

    Where both keep as many it is fp32, which costs no accuracy; where neither is fast enough with all layers, the
    faster one. ``layers``: of the dense model; ``dimensions``: of factored embeddings, None if they are one table.
    """
    assert pruner.target_speedup is not None
    kept: dict[str, float] = {}
    for table in tables:
        costs, budget = table.costs_of(dimensions), table.dense(layers) / pruner.target_speedup
        least = least_cost(costs, sizes, pruner.multiple, layers=False)
        if least <= budget:
            left = even_sizes(costs, sizes, budget, pruner.multiple)
            kept[table.spec.precision] = parameter_costs(table.shape).total(left)
            told = f"{pruner.target_speedup:g} times the speed of dense fp32 leaves {in_words(left)}"
        else:
            kept[table.spec.precision] = -least / budget
            told = f"{table.dense(layers) / least:.2f} times the speed of dense fp32 is the most"
            told += " unless layers go whole" * pruner.layers
        say(f"latency: in {table.spec.precision}, {told}")
    best = "int8" if kept["int8"] > kept["fp32"] else "fp32"
    say(f"latency: the run delivers {best}, on {tables[0].machine}")
    return best


def in_words(sizes: list[Size]) -> str:
    """What the layers keep: the same in each, or, of layers of unlike sizes, what the first does."""
    first = f"{sizes[0][0]} heads and {sizes[0][1]} neurons"
    return f"{first} in each layer" if len(set(sizes)) == 1 else f"{first} in the first layer"


def without_integers(config: Config) -> Config:
    """The same in floating point."""
    others = {name: each for name, each in config.recipe.modifiers.items() if not isinstance(each, Quantization)}
    return replace(config, quantization=None, recipe=replace(config.recipe, modifiers=others))
