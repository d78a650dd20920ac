"""Latency tables as if measured: two layers of an encoder whose milliseconds are easy to add up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.latency_table import LatencySpec, LatencyTable, write_latency_tables
from sparse_xp.functional.cost_model import LayerShape

SHAPE = LayerShape(hidden=32, heads=4, head_size=8, neurons=64)
TABLE = LatencyTable(
    spec=LatencySpec("onnxruntime", "int8", 1, 16),
    shape=SHAPE,
    machine=str(this_cpu()),
    version="1",
    full=(4.0, 6.0, 1.0),
    attention=[(1, 0.5), (3, 1.5), (4, 2.0)],
    feed_forward=[(16, 1.0), (32, 1.5), (64, 2.5)],
    embeddings=0.5,
)


def write_table(directory: Path, **changes: Any) -> str:
    """Write a table in which 2 heads take 2 ms and 16 neurons too, in int8, and twice that in fp32; return its path."""
    shape = replace(TABLE.shape, hidden=8, heads=2, head_size=4, neurons=16)
    points: dict[str, Any] = {"attention": [(1, 1.0), (2, 2.0)], "feed_forward": [(4, 0.5), (16, 2.0)]}
    table = replace(TABLE, shape=shape, full=(4.0, 4.0, 0.0), embeddings=0.0, **points | changes)
    write_latency_tables([table], directory / "table.json")
    return str(directory / "table.json")


def by_size(calls):
    """Milliseconds as long as the matrices of a graph are large, a third of that in integers."""
    return {key: (1 + key[1]) / (3000 if key[2] else 1000) for key in calls}
