"""``python -m sparse_xp.latency``: measure how long a layer takes with so many heads and neurons, as a table.

    python -m sparse_xp.latency model=DIR_OR_HUB_ID latency=onnxruntime:int8:1x128 out=FILE.json

``latency``: ENGINE:PRECISION:ROWSxTOKENS, one thread. PRECISION is fp32, int8, or auto for both, between which the run
chooses (``target_cpu``). A run with ``sparsity.target_speedup=`` measures such a table itself, once, and keeps it under
``data.cache``. One that was measured elsewhere, where the model is to be used, is named:
``sparsity.latency=FILE.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparse_xp.cli import parse_key_values, require_keys, run_command
from sparse_xp.console import say
from sparse_xp.deployment.engines import choose_engines
from sparse_xp.deployment.latency_measurement import measure_tables
from sparse_xp.deployment.latency_table import LatencyTable, is_latency_table, parse_specs, write_latency_tables
from sparse_xp.errors import UserError
from sparse_xp.files.ownership import check_replaceable
from sparse_xp.functional.cost_model import LayerShape
from sparse_xp.models.source import resolve_checkpoint
from sparse_xp.settings import Model

KEYS = ("model", "latency", "out")
#: the shares of heads and neurons for which the command prints the time
SHARES = (1.0, 0.75, 0.5, 0.25)


def main(argv: list[str]) -> None:
    """Run the command."""
    values = parse_key_values(argv, KEYS)
    require_keys(values, *KEYS)
    try:
        specs = parse_specs(values["latency"])
    except ValueError as error:
        raise UserError(str(error)) from error
    choose_engines([specs[0].engine])
    out = check_replaceable(Path(values["out"]), is_latency_table, "Name another file with out=.")
    shape, layers = shape_of_checkpoint(values["model"])
    tables = measure_tables(specs, shape)
    write_latency_tables(tables, out)
    dense = tables[0].dense_ms(layers)
    say(f"{values['out']}: {values['latency']} on {tables[0].machine}, {layers} layers; dense fp32 {dense:.2f} ms")
    for table in tables:
        print_times(table, layers)


def shape_of_checkpoint(checkpoint: str) -> tuple[LayerShape, int]:
    """Return the shape of the dense layers and their number, removed ones included. Loads no weights."""
    # torch and transformers are imported late: -h and errors of the command line must not load them
    import torch
    from transformers import AutoConfig, AutoModel

    from sparse_xp.functional.structured.config import full_shape, removed_layer_numbers

    config = AutoConfig.from_pretrained(resolve_checkpoint(Model(name="model", checkpoint=checkpoint), Path()))
    model_class: Any = AutoModel  # transformers leaves from_config untyped
    with torch.device("meta"):
        model = model_class.from_config(config)
    return full_shape(model), int(config.num_hidden_layers) + len(removed_layer_numbers(model))


def print_times(table: LatencyTable, layers: int) -> None:
    """Print the time of the whole model for several shares of heads and neurons."""
    costs, dense = table.costs(), table.dense_ms(layers)
    for share in SHARES:
        heads, neurons = max(1, round(share * table.shape.heads)), max(1, round(share * table.shape.neurons))
        total = costs.total([(heads, neurons)] * layers)
        say(
            f"  {table.spec.precision}, {heads} heads, {neurons} neurons: {total:.2f} ms, {dense / total:.2f} "
            "times as fast"
        )


if __name__ == "__main__":
    run_command(main, __doc__)
