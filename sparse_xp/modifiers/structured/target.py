"""What structured pruning has to reach: a lower cost of the encoder, or a speedup by a latency table of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.errors import UserError
from sparse_xp.functional.cost_model import (
    Costs,
    LayerShape,
    Size,
    minimum_cost,
    multiplication_costs,
    parameter_costs,
)
from sparse_xp.modifiers.quantization import Quantization

if TYPE_CHECKING:
    from sparse_xp.modifiers.context import HookContext

#: values of the option ``cost_metric``
COST_METRICS = ("parameters", "multiplications")


@dataclass(frozen=True)
class Target:
    """The cost that the encoder may keep.

    ``costs``: cost of every size. ``budget``: the most that may be left. ``dense``: cost of the full model.
    ``cost_metric``: what the costs count, None for milliseconds. ``description``: the options behind it, for messages.
    """

    costs: Costs
    budget: float
    dense: float
    cost_metric: str | None
    description: str

    def describe(self, cost: float) -> str:
        """Return what a ``cost`` means, as the end of a sentence that begins with "has"."""
        if self.cost_metric is None:
            return f"{self.dense / cost:.2f} times the speed of dense fp32"
        return f"{1 - cost / self.dense:.1%} fewer {self.cost_metric} than its full shape"

    def check_reachable(self, sizes: Sequence[Size], multiple: int, layers: bool, source: str) -> None:
        """Raise UserError if an encoder of these ``sizes`` meets the budget already, or cannot meet it.

        ``multiple`` and ``layers`` as in ``minimum_cost``; ``source``: the checkpoint, for the message.
        """
        current = self.costs.total(sizes)
        smallest = minimum_cost(self.costs, sizes, multiple, layers)
        if current <= self.budget:
            raise UserError(
                f"{self.description} is reached with nothing removed: {source} has {self.describe(current)}. Ask for "
                "more."
            )
        if smallest > self.budget:
            raise UserError(
                f"{self.description} cannot be reached: with one head and {multiple} neurons in "
                f"{'one' if layers else 'each'} of its {len(sizes)} layers, {source} has {self.describe(smallest)}. "
                "Ask for less" + (", or a smaller multiple." if multiple > 1 else ".")
            )


def check_target(kind: str, final_sparsity: float | None, target_speedup: float | None, latency: str | None) -> None:
    """Raise ValueError unless the options of the modifier ``kind`` name one target, and all that it needs."""
    if target_speedup is None:
        if latency is not None:
            raise ValueError(f"{kind}.latency={latency} is used with target_speedup only: give that too.")
        if final_sparsity is None or not 0 < final_sparsity < 1:
            raise ValueError(
                f"{kind}.final_sparsity={final_sparsity}: expected the part of the encoder to remove, strictly between "
                "0 and 1 (recipe.sparsity= sets it), or target_speedup=4 with a latency."
            )
        return
    if not 1 < target_speedup < float("inf"):
        raise ValueError(f"{kind}.target_speedup={target_speedup}: expected a number above 1, such as 4.")
    if latency is None:
        raise ValueError(
            f"{kind}.target_speedup={target_speedup:g} needs latency=, the engine and shape that it is for: "
            "sparsity.latency=onnxruntime:int8:1x128."
        )
    check_latency(kind, latency)


def check_latency(kind: str, latency: str) -> None:
    """Raise ValueError unless ``latency`` is a valid specification, or a file that exists."""
    # Imported late: the table of latencies belongs to deployment, which few recipes need.
    from sparse_xp.deployment.latency_table import names_table_file, parse_specs

    if not names_table_file(latency):
        parse_specs(latency)
    elif not Path(latency).is_file():
        raise ValueError(f"{kind}.latency={latency}: there is no such file. python -m sparse_xp.latency makes one.")


def cost_target(final_sparsity: float, cost_metric: str, tokens: int, shape: LayerShape, layers: int) -> Target:
    """Return the target of removing ``final_sparsity`` of the parameters or multiplications of the full encoder.

    The full encoder has so many ``layers`` of ``shape``. ``tokens``: length of the row whose multiplications count.
    """
    costs = multiplication_costs(shape, tokens) if cost_metric == "multiplications" else parameter_costs(shape)
    dense = costs.total([(shape.heads, shape.neurons)] * layers)
    description = f"StructuredPruning: final_sparsity={final_sparsity:g} of the {cost_metric}"
    return Target(costs, (1 - final_sparsity) * dense, dense, cost_metric, description)


def speedup_target(context: HookContext, target_speedup: float, latency: str, shape: LayerShape, layers: int) -> Target:
    """Return the target of being ``target_speedup`` times as fast as the full encoder in fp32.

    The table is measured now unless the run or the cache has it. Raises UserError for a table that is not of the
    precision that this run delivers.
    """
    from sparse_xp.deployment.latency_cache import tables_of_run
    from sparse_xp.functional.factored_embeddings import find_factored

    with context.accelerator.main_process_first():
        found = tables_of_run(context.directory, latency, shape, context.cache / "latency")
    tables = {table.spec.precision: table for table in found}
    quantized = bool(context.modifiers(Quantization))
    precision, alternative = ("int8", "none") if quantized else ("fp32", "int8")
    if precision not in tables:
        raise UserError(
            f"sparsity.latency={latency} is of a model in {', '.join(tables)}, and this run delivers one in "
            f"{precision}. Write quantization={alternative}, or another latency."
        )
    table = tables[precision]
    dense = table.dense_ms(layers)
    factored = find_factored(context.model)
    costs = table.costs_with_projection(None if factored is None else factored.final_dimensions)
    description = f"StructuredPruning: target_speedup={target_speedup:g} by {latency}"
    return Target(costs, dense / target_speedup, dense, None, description)
