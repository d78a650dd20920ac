"""Graphs of one kind of block with random weights, as an exported encoder has them, in fp32 or int8.

``latency_measurement`` times them. onnx is imported late: a run without ``target_speedup`` must not load it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparse_xp.functional.cost_model import LayerShape

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike
    from onnx import ModelProto, NodeProto, TensorProto

OPSET = 20
#: rows of the embedding table; only those that are looked up are read
VOCABULARY = 1000


class GraphBuilder:
    """Collects the nodes and weights of a graph. Its methods take and return names of values."""

    def __init__(self, hidden: int, int8: bool):
        self.hidden, self.int8 = hidden, int8
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.random = np.random.default_rng(0)

    def add(self, kind: str, *inputs: str, axis: int | None = None, perm: list[int] | None = None) -> str:
        """Add a node and return its only output. ``axis``, ``perm``: its attributes, None if it lacks them."""
        from onnx import helper

        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], axis=axis, perm=perm))
        return name

    def constant(self, values: ArrayLike, kind: DTypeLike = np.float32) -> str:
        """Add an initializer."""
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=kind), name))
        return name

    def quantize(self, values: str) -> str:
        """Round the input of a Linear to uint8, in a graph of int8."""
        if not self.int8:
            return values
        scale, zero = self.constant(0.03), self.constant(128, np.uint8)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", values, scale, zero), scale, zero)

    def linear(self, values: str, inputs: int, outputs: int) -> str:
        """Multiply by a matrix and add a bias. ``values``: from ``quantize``."""
        if self.int8:
            # 7 bits, the default of a run: without VNNI, exact kernels for 8 bits are slower.
            table = self.constant(self.random.integers(-63, 64, (inputs, outputs)), np.int8)
            weight = self.add("DequantizeLinear", table, self.constant(np.full(outputs, 1e-3)), axis=1)
        else:
            weight = self.constant(self.random.normal(0, 0.05, (inputs, outputs)))
        return self.add("Add", self.add("MatMul", values, weight), self.constant(np.zeros(outputs)))

    def norm(self, values: str) -> str:
        """Add a LayerNorm over the hidden size."""
        ones = np.ones(self.hidden)
        return self.add("LayerNormalization", values, self.constant(ones), self.constant(ones * 0), axis=-1)

    def model(self, output: str) -> ModelProto:
        """Return the model: hidden states, or token ids if it begins with embeddings, in; the value ``output`` out."""
        from onnx import TensorProto, helper

        has_ids = self.nodes[0].op_type == "Gather"
        # Dynamic, as in an exported file: for a fixed shape onnxruntime chooses other kernels, none of them for
        # integers.
        batch: list[str | int | None] = ["rows", "tokens"]
        wide = [*batch, self.hidden]
        entry = (
            helper.make_tensor_value_info("numbers", TensorProto.INT64, batch)
            if has_ids
            else helper.make_tensor_value_info("states", TensorProto.FLOAT, wide)
        )
        exit_ = helper.make_tensor_value_info(output, TensorProto.FLOAT, wide)
        graph = helper.make_graph(self.nodes, "block", [entry], [exit_], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def attention_block(shape: LayerShape, heads: int, tokens: int, copies: int, int8: bool) -> ModelProto:
    """Return self-attention of a layer of this ``shape`` with ``heads``, its residual and LayerNorm, ``copies`` times.

    It has the mask, and the guard against rows that are masked altogether, that the exporter writes. With relative
    positions, it has their keys and queries as well (DeBERTa).
    """
    hidden, size = shape.hidden, shape.head_size
    graph = GraphBuilder(hidden, int8)
    mask, zero = graph.constant(np.zeros((1, 1, tokens, tokens))), graph.constant(0.0)
    states, width = "states", heads * size
    split_heads, join_heads = graph.constant([0, 0, heads, size], np.int64), graph.constant([0, 0, width], np.int64)
    for _ in range(copies):
        inputs = graph.quantize(states)
        query, key, value = (
            graph.add("Reshape", graph.linear(inputs, hidden, width), split_heads) for _ in ("query", "key", "value")
        )
        query, value = (graph.add("Transpose", values, perm=[0, 2, 1, 3]) for values in (query, value))
        key = graph.add("Transpose", key, perm=[0, 2, 3, 1])
        products = graph.add("MatMul", query, key)
        if shape.relative_positions:
            products = graph.add("Add", products, relative_products(graph, query, key, shape, heads, tokens))
        products = graph.add("Mul", products, graph.constant(size**-0.5))
        shares = graph.add("Softmax", graph.add("Add", products, mask), axis=-1)
        shares = graph.add("Where", graph.add("IsNaN", shares), zero, shares)
        mixed = graph.add("MatMul", shares, value)
        mixed = graph.add("Reshape", graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), join_heads)
        states = graph.norm(graph.add("Add", graph.linear(graph.quantize(mixed), width, hidden), states))
    return graph.model(states)


def relative_products(graph: GraphBuilder, query: str, key: str, shape: LayerShape, heads: int, tokens: int) -> str:
    """Return the products of tokens and relative positions, [rows, heads, tokens, tokens].

    ``query`` [rows, heads, tokens, head_size], ``key`` [rows, heads, head_size, tokens].
    """
    positions, width = shape.relative_positions, heads * shape.head_size
    table = graph.quantize(graph.constant(np.ones((1, positions, shape.hidden))))
    split = graph.constant([1, positions, heads, shape.head_size], np.int64)
    of_keys, of_queries = (
        graph.add("Reshape", graph.linear(table, shape.hidden, width), split) for _ in ("keys", "queries")
    )
    by_query = graph.add("MatMul", query, graph.add("Transpose", of_keys, perm=[0, 2, 3, 1]))
    by_key = graph.add("MatMul", graph.add("Transpose", of_queries, perm=[0, 2, 1, 3]), key)
    # Keys and queries of positions follow from constants: an engine computes them when it loads the file.
    # From their products it reads the entry of each pair's distance; here the first ones, which takes as long.
    distances = graph.constant(np.arange(tokens) % positions, np.int64)
    by_key = graph.add("Gather", by_key, distances, axis=2)
    return graph.add("Add", graph.add("Gather", by_query, distances, axis=3), by_key)


def feed_forward_block(shape: LayerShape, neurons: int, copies: int, int8: bool) -> ModelProto:
    """Return two Linears with a GELU between them, the residual and LayerNorm, ``copies`` times.

    Gated layers multiply the activations by the result of a third Linear.
    """
    hidden = shape.hidden
    graph = GraphBuilder(hidden, int8)
    states = "states"
    for _ in range(copies):
        inputs = graph.quantize(states)
        activations = graph.add("Gelu", graph.linear(inputs, hidden, neurons))
        if shape.gated:
            activations = graph.add("Mul", activations, graph.linear(inputs, hidden, neurons))
        states = graph.norm(graph.add("Add", graph.linear(graph.quantize(activations), neurons, hidden), states))
    return graph.model(states)


def embeddings_block(hidden: int, tokens: int, int8: bool) -> ModelProto:
    """Return the sum of word, token type and position embeddings, and LayerNorm."""
    graph = GraphBuilder(hidden, int8)
    tables = []
    for _ in range(2):
        values = graph.random.integers(-127, 128, (VOCABULARY, hidden))
        rows = graph.add("Gather", graph.constant(values, np.int8 if int8 else np.float32), "numbers")
        tables.append(graph.add("DequantizeLinear", rows, graph.constant(1e-3)) if int8 else rows)
    positions = graph.constant(np.zeros((tokens, hidden)))
    return graph.model(graph.norm(graph.add("Add", graph.add("Add", *tables), positions)))


def save_block(model: ModelProto, path: Path) -> None:
    """Check and write a block."""
    import onnx

    onnx.checker.check_model(model)
    onnx.save(model, path)
