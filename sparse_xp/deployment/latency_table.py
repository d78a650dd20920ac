"""Latency tables: milliseconds of a layer by its numbers of heads and neurons, on one engine and CPU.

``latency_measurement`` measures them, ``latency_cache`` stores them and finds those of a run.
``modifiers.structured.pruning`` and ``target_cpu`` remove heads and neurons until the sum of these times reaches the
target. This module imports no torch: ``StructuredPruning`` checks ``sparsity.latency`` with it while a configuration is
composed.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparse_xp.deployment.engines import ENGINES
from sparse_xp.errors import UserError
from sparse_xp.files.json_text import to_json
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.writing import write_text
from sparse_xp.functional.cost_model import Costs, LayerShape

PRECISIONS = ("fp32", "int8")
_SPEC = re.compile(r"(?P<engine>\w+):(?P<precision>\w+):(?P<rows>\d+)x(?P<tokens>\d+)")

#: a number of heads or neurons, and the milliseconds of a block with so many
Point = tuple[int, float]


@dataclass(frozen=True)
class LatencySpec:
    """What is measured: a call with ``rows`` of ``tokens``, in ``precision`` (one of PRECISIONS)."""

    engine: str
    precision: str
    rows: int
    tokens: int


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of each kind of block.

    ``full``: attention, feed-forward and embeddings of the dense model in fp32, the reference of a speed-up.
    ``attention``: by number of heads, ascending; ``feed_forward``: by number of neurons, ascending.
    """

    spec: LatencySpec
    shape: LayerShape
    machine: str
    version: str
    full: tuple[float, float, float]
    attention: list[Point]
    feed_forward: list[Point]
    embeddings: float

    def costs(self) -> Costs:
        """Return the time for every number of heads and neurons, interpolated and never falling; 0 for none."""
        return Costs(
            heads=[0.0, *interpolate(self.attention, self.shape.heads)[1:]],
            neurons=[0.0, *interpolate(self.feed_forward, self.shape.neurons)[1:]],
            rest=self.embeddings,
        )

    def costs_with_projection(self, dimensions: int | None) -> Costs:
        """Return the costs of a model with factored embeddings of ``dimensions``; None: its embeddings are not."""
        return (
            self.costs() if dimensions is None else self.costs().with_projection(dimensions, self.shape.rows_per_neuron)
        )

    def dense_ms(self, layers: int) -> float:
        """Return the milliseconds of the whole dense model in fp32."""
        attention, feed_forward, embeddings = self.full
        return layers * (attention + feed_forward) + embeddings


def parse_specs(text: str) -> list[LatencySpec]:
    """Return what ``onnxruntime:int8:1x128`` specifies; ``auto`` is both precisions. Raises ValueError."""
    match = _SPEC.fullmatch(text.strip())
    if not match or match["engine"] not in ENGINES or match["precision"] not in (*PRECISIONS, "auto"):
        raise ValueError(
            f"latency={text}: expected ENGINE:PRECISION:ROWSxTOKENS, such as onnxruntime:int8:1x128 (engines "
            f"{', '.join(ENGINES)}; {', '.join(PRECISIONS)} or auto), or FILE.json, which python -m sparse_xp.latency "
            "wrote."
        )
    rows, tokens = int(match["rows"]), int(match["tokens"])
    if rows < 1 or tokens < 2:
        raise ValueError(f"latency={text}: expected at least 1 row of 2 tokens.")
    precisions = PRECISIONS if match["precision"] == "auto" else (match["precision"],)
    return [LatencySpec(match["engine"], precision, rows, tokens) for precision in precisions]


def names_table_file(latency: str) -> bool:
    """Return whether the setting ``latency`` names a table file, rather than what is to be measured."""
    return latency.endswith(".json")


def interpolate(points: list[Point], most: int) -> list[float]:
    """Return a value for each of 0 to ``most``. It never falls: noise must not make more look faster than less."""
    numbers, values = zip(*sorted(points), strict=True)
    return [float(x) for x in np.maximum.accumulate(np.interp(range(most + 1), numbers, values))]


def write_latency_tables(tables: list[LatencyTable], path: Path) -> None:
    """Write JSON: the table, or a list of several."""
    content = [asdict(table) for table in tables]
    write_text(path, to_json(content[0] if len(content) == 1 else content, indent=1) + "\n")


def read_latency_tables(path: Path) -> list[LatencyTable]:
    """Return what ``write_latency_tables`` wrote. Raises UserError if the file is missing or has no table."""
    if not os.path.lexists(path):
        raise UserError(f"latency={path}: no such file. python -m sparse_xp.latency makes one.")
    with explain_read_errors(path, "It should be a table that python -m sparse_xp.latency made."):
        raw = json.loads(path.read_text(encoding="utf-8"))
        tables = [table_from_json(value) for value in (raw if isinstance(raw, list) else [raw])]
        if not tables:
            raise ValueError("an empty list")
        return tables


def is_latency_table(path: Path) -> bool:
    """Return whether ``path`` is a file that ``write_latency_tables`` wrote."""
    try:
        return bool(read_latency_tables(path))
    except UserError:
        return False


def table_from_json(value: dict[str, Any]) -> LatencyTable:
    """Return a table from its JSON object. Raises ValueError, KeyError or TypeError for anything else."""
    value |= {
        "spec": LatencySpec(**value["spec"]),
        "shape": LayerShape(**value["shape"]),
        "full": tuple(value["full"]),
    }
    value |= {name: [(int(n), float(ms)) for n, ms in value[name]] for name in ("attention", "feed_forward")}
    return LatencyTable(**value)
