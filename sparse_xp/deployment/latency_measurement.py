"""Measure latency tables: time graphs of a single kind of block (``latency_graph``) of several sizes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparse_xp.cpu import this_cpu
from sparse_xp.deployment import latency_graph
from sparse_xp.deployment.engines import ENGINES, Batch, Call, engine_versions
from sparse_xp.deployment.latency_table import LatencySpec, LatencyTable
from sparse_xp.deployment.timing import WARM_UP_CALLS
from sparse_xp.functional.cost_model import LayerShape

if TYPE_CHECKING:
    from onnx import ModelProto

#: calls of each graph; the fastest counts
ROUNDS = 15
#: blocks in one graph, so that the constant cost of a call counts little
COPIES = 2
#: the heads and the neurons of a layer are measured at so many sizes at most, and interpolated between them
POINTS = 8


class TimedBlock(NamedTuple):
    """A graph to time. ``kind``: attention, feed_forward or embeddings; ``size``: its number of heads or neurons."""

    kind: str
    size: int
    int8: bool


def measure_tables(specs: list[LatencySpec], shape: LayerShape) -> list[LatencyTable]:
    """Measure a table for each of ``specs``, which differ in their precision alone."""
    heads, neurons = sample_sizes(shape.heads, 1), sample_sizes(shape.neurons, min(16, shape.neurons))
    sizes = {"attention": heads, "feed_forward": neurons, "embeddings": [0]}
    blocks = [
        TimedBlock(kind, size, spec.precision == "int8") for spec in specs for kind in sizes for size in sizes[kind]
    ]
    full = (
        TimedBlock("attention", shape.heads, False),
        TimedBlock("feed_forward", shape.neurons, False),
        TimedBlock("embeddings", 0, False),
    )
    ms = time_blocks(list(dict.fromkeys([*blocks, *full])), specs[0], shape)
    tables = []
    for spec in specs:
        int8 = spec.precision == "int8"
        table = LatencyTable(
            spec=spec,
            shape=shape,
            machine=str(this_cpu()),
            version=engine_versions([spec.engine])[spec.engine],
            full=(ms[full[0]], ms[full[1]], ms[full[2]]),
            attention=[(size, ms[TimedBlock("attention", size, int8)]) for size in heads],
            feed_forward=[(size, ms[TimedBlock("feed_forward", size, int8)]) for size in neurons],
            embeddings=ms[TimedBlock("embeddings", 0, int8)],
        )
        tables.append(table)
    return tables


def time_blocks(blocks: list[TimedBlock], spec: LatencySpec, shape: LayerShape) -> dict[TimedBlock, float]:
    """Return the milliseconds of each block on one thread. ``spec``: gives the engine, rows and tokens."""
    rng = np.random.default_rng(0)
    states = rng.normal(0, 1, (spec.rows, spec.tokens, shape.hidden)).astype(np.float32)
    ids = np.random.default_rng(0).integers(0, latency_graph.VOCABULARY, (spec.rows, spec.tokens))
    calls: dict[TimedBlock, tuple[Call, Batch]] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "block.onnx"
        for block in blocks:
            latency_graph.save_block(make_block(block, spec.tokens, shape), path)
            inputs = {"numbers": ids} if block.kind == "embeddings" else {"states": states}
            calls[block] = ENGINES[spec.engine](path, 1), inputs
            path.unlink()
        seconds = fastest_times(calls)
    return {block: s * 1e3 / (1 if block.kind == "embeddings" else COPIES) for block, s in seconds.items()}


def make_block(block: TimedBlock, tokens: int, shape: LayerShape) -> ModelProto:
    """Return the graph of a block."""
    if block.kind == "attention":
        return latency_graph.attention_block(shape, block.size, tokens, COPIES, block.int8)
    if block.kind == "feed_forward":
        return latency_graph.feed_forward_block(shape, block.size, COPIES, block.int8)
    return latency_graph.embeddings_block(shape.hidden, tokens, block.int8)


def sample_sizes(most: int, least: int) -> list[int]:
    """Return up to ``POINTS`` sizes at even distances up to ``most``, and ``least``."""
    return sorted({least, *(max(least, most * part // POINTS) for part in range(1, POINTS + 1))})


def fastest_times(calls: dict[TimedBlock, tuple[Call, Batch]]) -> dict[TimedBlock, float]:
    """Return the seconds of CPU time of each call, the least over the rounds.

    On one thread CPU time equals latency on an idle machine, and other processes do not count.
    """
    for call, batch in calls.values():
        for _ in range(WARM_UP_CALLS):
            call(batch)
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for block, (call, batch) in calls.items():
            begin = time.process_time()
            call(batch)
            best[block] = min(best[block], time.process_time() - begin)
    return best
