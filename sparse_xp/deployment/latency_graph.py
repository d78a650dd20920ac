"""Graphs of one kind of block, with random weights: what an exported encoder consists of, in fp32 or in integers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSET = 20
#: rows of the embeddings' table; only those are read that are looked up
WORDS = 1000


class Graph:
    """Nodes and weights in the order in which they are added; values are the names of what a node gives."""

    def __init__(self, hidden: int, int8: bool):
        self.hidden, self.int8 = hidden, int8
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.random = np.random.default_rng(0)

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        from onnx import helper

        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any, kind: Any = np.float32) -> str:
        """An initializer."""
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=kind), name))
        return name

    def integers(self, values: str) -> str:
        """An activation as it goes into a Linear: rounded to uint8 where the graph is one of integers."""
        if not self.int8:
            return values
        scale, zero = self.constant(0.03), self.constant(128, np.uint8)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", values, scale, zero), scale, zero)

    def linear(self, values: str, inputs: int, outputs: int) -> str:
        """A matrix and its bias; ``values`` come from ``integers``."""
        if self.int8:
            # Of 7 bits, as runs make them: on a CPU without VNNI those of 8 bits take a slower kernel.
            table = self.constant(self.random.integers(-63, 64, (inputs, outputs)), np.int8)
            weight = self.add("DequantizeLinear", table, self.constant(np.full(outputs, 1e-3)), axis=1)
        else:
            weight = self.constant(self.random.normal(0, 0.05, (inputs, outputs)))
        return self.add("Add", self.add("MatMul", values, weight), self.constant(np.zeros(outputs)))

    def norm(self, values: str) -> str:
        """LayerNorm over the width."""
        width = np.ones(self.hidden)
        return self.add("LayerNormalization", values, self.constant(width), self.constant(width * 0), axis=-1)

    def model(self, output: str) -> ModelProto:
        """The whole: hidden states or numbers of tokens in, hidden states out."""
        from onnx import TensorProto, helper

        numbers = self.nodes[0].op_type == "Gather"
        # Of no fixed size, as in an exported file: with one onnxruntime makes other kernels, and none of integers.
        batch: list[str | int | None] = ["rows", "tokens"]
        wide = [*batch, self.hidden]
        given = (
            helper.make_tensor_value_info("numbers", TensorProto.INT64, batch)
            if numbers
            else helper.make_tensor_value_info("states", TensorProto.FLOAT, wide)
        )
        found = helper.make_tensor_value_info(output, TensorProto.FLOAT, wide)
        graph = helper.make_graph(self.nodes, "block", [given], [found], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def attention(hidden: int, heads: int, size: int, tokens: int, copies: int, int8: bool) -> ModelProto:
    """Self-attention with ``heads`` of ``size``, its residual and LayerNorm, ``copies`` times.

    With the mask, and the care for rows that are masked altogether, that the exporter writes.
    """
    graph = Graph(hidden, int8)
    mask, nothing = graph.constant(np.zeros((1, 1, tokens, tokens))), graph.constant(0.0)
    states, width = "states", heads * size
    split, joined = graph.constant([0, 0, heads, size], np.int64), graph.constant([0, 0, width], np.int64)
    for _ in range(copies):
        given = graph.integers(states)
        query, key, value = (
            graph.add("Reshape", graph.linear(given, hidden, width), split) for _ in ("query", "key", "value")
        )
        query, value = (graph.add("Transpose", each, perm=[0, 2, 1, 3]) for each in (query, value))
        key = graph.add("Transpose", key, perm=[0, 2, 3, 1])
        products = graph.add("Mul", graph.add("MatMul", query, key), graph.constant(size**-0.5))
        shares = graph.add("Softmax", graph.add("Add", products, mask), axis=-1)
        shares = graph.add("Where", graph.add("IsNaN", shares), nothing, shares)
        found = graph.add("MatMul", shares, value)
        found = graph.add("Reshape", graph.add("Transpose", found, perm=[0, 2, 1, 3]), joined)
        states = graph.norm(graph.add("Add", graph.linear(graph.integers(found), width, hidden), states))
    return graph.model(states)


def feed_forward(hidden: int, neurons: int, copies: int, int8: bool) -> ModelProto:
    """Two Linears with a GELU between them, the residual and LayerNorm, ``copies`` times."""
    graph = Graph(hidden, int8)
    states = "states"
    for _ in range(copies):
        inside = graph.add("Gelu", graph.linear(graph.integers(states), hidden, neurons))
        states = graph.norm(graph.add("Add", graph.linear(graph.integers(inside), neurons, hidden), states))
    return graph.model(states)


def embeddings(hidden: int, tokens: int, int8: bool) -> ModelProto:
    """Rows of two tables (words and kinds of text) and those of the positions, LayerNorm."""
    graph = Graph(hidden, int8)
    tables = []
    for _ in range(2):
        values = graph.random.integers(-127, 128, (WORDS, hidden))
        found = graph.add("Gather", graph.constant(values, np.int8 if int8 else np.float32), "numbers")
        tables.append(graph.add("DequantizeLinear", found, graph.constant(1e-3)) if int8 else found)
    positions = graph.constant(np.zeros((tokens, hidden)))
    return graph.model(graph.norm(graph.add("Add", graph.add("Add", *tables), positions)))


def save(model: ModelProto, path: Path) -> None:
    """Check and write it."""
    import onnx

    onnx.checker.check_model(model)
    onnx.save(model, path)
