"""Adapt a run to the CPU that its file is for: say what makes it faster, and choose fp32 or int8 by measured latency.

``main`` prints ``start_note`` before a run. ``run`` calls ``with_chosen_precision`` once the model is loaded: with
``sparsity.latency=...:auto:...`` it decides whether the run quantizes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.config import Config
from sparse_xp.console import say
from sparse_xp.cpu import CPU_KINDS, advice, this_cpu
from sparse_xp.deployment.latency_cache import TABLES, tables_of_run
from sparse_xp.deployment.latency_table import LatencyTable, names_table_file, read_latency_tables
from sparse_xp.errors import UserError
from sparse_xp.functional.cost_model import Size, minimum_cost, parameter_costs, uniform_sizes
from sparse_xp.modifiers.layer_pruning import LayerPruning
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.modifiers.quantization import Quantization
from sparse_xp.modifiers.structured.pruning import StructuredPruning
from sparse_xp.processes import is_first_process

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: the note on a run that ends with scattered zeros and nothing else
SCATTERED_ZEROS = (
    "speed: scattered zeros make the file smaller once it is compressed, and no faster: onnxruntime and OpenVINO "
    "multiply by zeros as by any other number. What makes it faster: recipe=structured50 (about 2 times), "
    "recipe=speedup4, and quantization=int8 on CPUs with instructions for it (python -m sparse_xp.cpu)"
)


def find_speedup_pruner(config: Config) -> StructuredPruning | None:
    """Return the modifier that removes heads and neurons up to a speed-up, None if the run has none."""
    pruners = [modifier for modifier in config.modifiers().values() if isinstance(modifier, StructuredPruning)]
    return next((pruner for pruner in pruners if pruner.target_speedup is not None), None)


def is_quantized_run(config: Config) -> bool:
    """Return whether the run, as configured, delivers a file of int8."""
    return any(isinstance(modifier, Quantization) for modifier in config.modifiers().values())


def leaves_precision_open(latency: str) -> bool:
    """Return whether the setting ``sparsity.latency`` allows both fp32 and int8."""
    if not names_table_file(latency):
        return ":auto:" in latency
    return len({table.spec.precision for table in read_latency_tables(Path(latency))}) > 1


def makes_scattered_zeros_only(config: Config) -> bool:
    """Return whether zeros, single or in small blocks, are all that could make the file of the run faster.

    A run of a pretraining task delivers a checkpoint for other runs, which is no file to be fast.
    """
    kinds = [type(modifier) for modifier in config.modifiers().values()]
    others = (StructuredPruning, LayerPruning, Quantization)
    prunes = any(issubclass(kind, Pruning) for kind in kinds)
    return prunes and not any(issubclass(kind, others) for kind in kinds) and not config.task.is_language_model


def start_note(config: Config, directory: Path) -> str | None:
    """Return a note on the speed of the file, before hours are spent on it; None without advice.

    It is about scattered zeros for a run that makes nothing else, and about 8 bits on the target CPU for one that
    quantizes.

    Raises UserError if the target CPU is of another kind and the run would have to measure its speed here. It does not
    measure again if ``directory`` has tables already.
    """
    here, there = this_cpu(), config.export.target_cpu or this_cpu().kind
    pruner = find_speedup_pruner(config)
    measures = pruner and pruner.latency and not names_table_file(pruner.latency) and not (directory / TABLES).is_file()
    if pruner and measures and there != here.kind:
        raise UserError(
            f"export.target_cpu={there}: sparsity.latency={pruner.latency} would be measured here, on {here.short}. "
            f"Measure it there, python -m sparse_xp.latency model=DIR latency={pruner.latency} out=FILE.json, and give "
            "sparsity.latency=FILE.json."
        )
    # The run compares fp32 and int8 itself if its latency leaves the precision open.
    chooses = pruner and pruner.latency and leaves_precision_open(pruner.latency)
    if makes_scattered_zeros_only(config):
        return SCATTERED_ZEROS
    if not is_quantized_run(config) or CPU_KINDS[there].fast or chooses:
        return None
    cpu = here.short if there == here.kind else CPU_KINDS[there].description
    return f"8 bits on {cpu}: {advice(there)}"


def with_chosen_precision(
    config: Config, model: PreTrainedModel, directory: Path, cache: Path, quantized_before: bool | None
) -> Config:
    """Return the configuration with fp32 or int8 chosen, if its latency leaves that open.

    ``directory``: of the run, which keeps its latency tables; ``cache``: of tables. ``quantized_before``: whether the
    run, if it is resumed, began with int8; None if it begins now. A resumed run keeps its precision on any CPU.
    """
    # torch is imported late: main imports this module for commands without a run too
    from sparse_xp.functional.factored_embeddings import find_factored
    from sparse_xp.functional.structured.blocks import sizes_of
    from sparse_xp.functional.structured.config import full_shape, removed_layer_numbers

    pruner = find_speedup_pruner(config)
    if not pruner or not pruner.latency:
        return config
    if quantized_before is None and is_first_process():  # in a distributed run, rank 0 for all
        # Left by a run of another configuration that was killed before it began.
        (directory / TABLES).unlink(missing_ok=True)
    tables = tables_of_run(directory, pruner.latency, full_shape(model), cache)
    if len({table.spec.precision for table in tables}) == 1 or not is_quantized_run(config):
        return config
    if quantized_before is None:
        sizes, factored = sizes_of(model), find_factored(model)
        dimensions = None if factored is None else factored.final_dimensions
        layers = len(sizes) + len(removed_layer_numbers(model))
        quantized_before = faster_precision(tables, sizes, layers, pruner, dimensions) == "int8"
    return config if quantized_before else without_quantization(config)


def faster_precision(
    tables: list[LatencyTable], sizes: list[Size], layers: int, pruner: StructuredPruning, dimensions: int | None = None
) -> str:
    """Return ``fp32`` or ``int8``: the one that keeps more weights at the target speed, the same share in every layer.

    fp32, which costs no accuracy, if both keep as many. The faster one if neither is fast enough with all layers.

    ``sizes``: heads and neurons of each layer; ``layers``: their number in the dense model; ``dimensions``: of factored
    embeddings, None for a plain table.
    """
    assert pruner.target_speedup is not None
    score: dict[str, float] = {}  # weights kept if fast enough, else a negative number that is larger if faster
    for table in tables:
        costs, budget = table.costs_with_projection(dimensions), table.dense_ms(layers) / pruner.target_speedup
        least = minimum_cost(costs, sizes, pruner.multiple, layers=False)
        if least <= budget:
            left = uniform_sizes(costs, sizes, budget, pruner.multiple)
            score[table.spec.precision] = parameter_costs(table.shape).total(left)
            message = f"{pruner.target_speedup:g} times the speed of dense fp32 leaves {describe_sizes(left)}"
        else:
            score[table.spec.precision] = -least / budget
            message = f"{table.dense_ms(layers) / least:.2f} times the speed of dense fp32 is the most"
            message += " unless layers go whole" * pruner.layers
        say(f"latency: in {table.spec.precision}, {message}")
    best = "int8" if score["int8"] > score["fp32"] else "fp32"
    say(f"latency: the run delivers {best}, on {tables[0].machine}")
    return best


def describe_sizes(sizes: list[Size]) -> str:
    """Describe the heads and neurons of all layers if they are equal, else of the first."""
    first = f"{sizes[0][0]} heads and {sizes[0][1]} neurons"
    return f"{first} in each layer" if len(set(sizes)) == 1 else f"{first} in the first layer"


def without_quantization(config: Config) -> Config:
    """Return the configuration of the same run in floating point."""
    others = {name: item for name, item in config.recipe.modifiers.items() if not isinstance(item, Quantization)}
    return replace(config, quantization=None, recipe=replace(config.recipe, modifiers=others))
