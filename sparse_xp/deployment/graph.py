"""Statistics of an ONNX graph (zeros, integers, saturation), and its dense copy to compare its speed with.

onnx is imported late: the commands that never look into a graph must not load it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparse_xp.deployment.onnx_file import check_self_contained, data_file, library_errors
from sparse_xp.functional.saturation import ACTIVATION, can_saturate, largest_pair

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

#: operators that only a file of integers has
INTEGER_OPERATORS = ("QLinearMatMul", "MatMulInteger", "QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear")


@dataclass
class GraphStats:
    """Statistics of a graph.

    ``zeros``: the share of exact zeros among the weights of matrix products, without embeddings. ``integers``: whether
    it computes in int8. ``largest_pair``: the largest |w1| + |w2| of two int8 weights of one output, None if no matrix
    is int8; 2 * 255 if two activations are multiplied as integers, the bound of uint8.
    """

    zeros: float
    integers: bool
    largest_pair: int | None = None

    @property
    def portable(self) -> bool:
        """Whether no two products can overflow 16 bits, so that every session on every CPU computes the same."""
        return self.largest_pair is None or not can_saturate(self.largest_pair)


def inspect_graph(path: Path) -> GraphStats:
    """Return the statistics of a graph. Raises UserError for a file that is not a graph."""
    graph = load_onnx(path).graph
    with library_errors(path):
        weights = [read_weight(path, weight) for weight in matrix_weights(graph)]
    total = sum(weight.size for weight in weights)
    nonzero = sum(int(np.count_nonzero(weight)) for weight in weights)
    pairs = [largest_pair(weight) for weight in weights if weight.dtype == np.int8]
    pairs += [2 * ACTIVATION] * multiplies_activations(graph)
    return GraphStats(
        zeros=1 - nonzero / total if total else 0.0,
        integers=any(node.op_type in INTEGER_OPERATORS for node in graph.node),
        largest_pair=max(pairs, default=None),
    )


def load_onnx(path: Path) -> ModelProto:
    """Return the graph, without the weights that stand in the file beside it (``read_weight``).

    Raises UserError if it is not a graph, or has weights elsewhere.
    """
    import onnx

    check_self_contained(path)
    with library_errors(path):
        return onnx.load(path, load_external_data=False)


def read_weight(path: Path, weight: TensorProto) -> np.ndarray:
    """Return the values of an initializer of the graph ``path``. Those in the file beside it are mapped, not read."""
    import onnx

    if not is_external(weight):
        return onnx.numpy_helper.to_array(weight)
    return map_weight(path, weight, "r")


def is_external(weight: TensorProto) -> bool:
    """Return whether the values of an initializer stand in the file beside the graph."""
    import onnx

    return bool(weight.data_location == onnx.TensorProto.EXTERNAL)


def map_weight(path: Path, weight: TensorProto, mode: Literal["r", "r+"]) -> np.ndarray:
    """Return the values of an initializer in the file beside the graph ``path``; with ``r+``, they can be changed."""
    import onnx

    kind = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type)
    if not all(weight.dims):
        return np.zeros(tuple(weight.dims), kind)
    offset = next((int(entry.value) for entry in weight.external_data if entry.key == "offset"), 0)
    return np.memmap(data_file(path), kind, mode, offset, tuple(weight.dims))


def matrix_weights(graph: GraphProto) -> list[TensorProto]:
    """Return the matrices among the graph's initializers, without embedding tables."""
    nodes = [node for node in graph.node if node.input and node.output]  # a damaged file may have others
    dequantized = {node.output[0]: node.input[0] for node in nodes if node.op_type == "DequantizeLinear"}
    looked_up = {dequantized.get(node.input[0], node.input[0]) for node in nodes if node.op_type == "Gather"}
    return [weight for weight in graph.initializer if len(weight.dims) == 2 and weight.name not in looked_up]


def multiplies_activations(graph: GraphProto) -> bool:
    """Return whether a MatMul has two quantized activations as factors.

    An engine multiplies those as integers as well. It finds the DequantizeLinear behind Reshape and Transpose, and so
    does this function.
    """
    producers = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name for tensor in graph.initializer}

    def is_quantized_activation(name: str) -> bool:
        node = producers.get(name)
        for _ in producers:  # bounded: the nodes of a damaged file may form a cycle
            if node is None or node.op_type not in ("Reshape", "Transpose") or not node.input:
                break
            node = producers.get(node.input[0])
        if node is None or node.op_type != "DequantizeLinear":
            return False
        return bool(node.input) and node.input[0] not in weights

    return any(all(map(is_quantized_activation, node.input)) for node in graph.node if node.op_type == "MatMul")


def densify(path: Path, dense: Path) -> None:
    """Write a copy of an fp32 graph to ``dense`` with noise, of the scale of the other weights, in place of zeros."""
    import onnx

    model = load_onnx(path)
    generator = np.random.default_rng(0)
    external = [weight for weight in model.graph.initializer if is_external(weight)]
    if external:
        shutil.copyfile(data_file(path), data_file(dense))
    for weight in matrix_weights(model.graph):
        values = map_weight(dense, weight, "r+") if is_external(weight) else onnx.numpy_helper.to_array(weight).copy()
        zeros = values == 0
        if values.dtype.kind == "f" and zeros.any():
            size = float(values[~zeros].std()) if not zeros.all() else 0.02
            values[zeros] = generator.normal(0, size or 0.02, int(zeros.sum())).astype(values.dtype)
            if not is_external(weight):
                weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    for weight in external:
        for entry in weight.external_data:
            entry.value = data_file(dense).name if entry.key == "location" else entry.value
    onnx.save(model, dense)
