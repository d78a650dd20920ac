"""What an ONNX file has inside: zeros, integers; and the dense file of the same shape to compare it with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparse_xp.deployment.engines import AGAIN, check_whole, library
from sparse_xp.errors import UserError
from sparse_xp.functional.saturation import ACTIVATION, can_saturate, largest_pair

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

INTEGER = ("QLinearMatMul", "MatMulInteger", "QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear")


@dataclass
class Inside:
    """``zeros``: the share of exact zeros of the matrices that are multiplied, embeddings not among them.

    ``largest_pair``: the largest |w1| + |w2| of two int8 weights of one output, None if no matrix is of int8. Where two
    activations are multiplied as integers there is no bound but that of uint8, twice 255.
    """

    zeros: float
    integers: bool
    largest_pair: int | None = None

    @property
    def portable(self) -> bool:
        """Whether no two products can overflow 16 bits: every session on every CPU computes the same."""
        return self.largest_pair is None or not can_saturate(self.largest_pair)


def look(path: Path) -> Inside:
    """Read the graph and count. Raises UserError for a file that is none."""
    import onnx

    graph = load(path).graph
    with library(path):
        weights = [onnx.numpy_helper.to_array(weight) for weight in multiplied(graph)]
    total = sum(weight.size for weight in weights)
    nonzero = sum(int(np.count_nonzero(weight)) for weight in weights)
    pairs = [largest_pair(weight) for weight in weights if weight.dtype == np.int8]
    pairs += [2 * ACTIVATION] * multiplies_activations(graph)
    return Inside(
        zeros=1 - nonzero / total if total else 0.0,
        integers=any(node.op_type in INTEGER for node in graph.node),
        largest_pair=max(pairs, default=None),
    )


def fixed_shape(path: Path) -> tuple[int | None, int | None]:
    """How many rows and tokens the graph takes, None where any number will do. Raises UserError for another graph."""
    inputs = load(path).graph.input
    dims = inputs[0].type.tensor_type.shape.dim if inputs else []
    if len(dims) != 2:
        raise UserError(f"{path} takes no rows of tokens. {AGAIN}")
    return dims[0].dim_value or None, dims[1].dim_value or None


def load(path: Path) -> ModelProto:
    """The whole file. Raises UserError for one that is no graph, or keeps a part of itself outside of its folder."""
    import onnx

    check_whole(path)
    with library(path):
        return onnx.load(path)


def multiplied(graph: GraphProto) -> list[TensorProto]:
    """The matrices among the graph's initializers, less those that are looked up row by row."""
    whole = [node for node in graph.node if node.input and node.output]
    floats = {node.output[0]: node.input[0] for node in whole if node.op_type == "DequantizeLinear"}
    looked_up = {floats.get(node.input[0], node.input[0]) for node in whole if node.op_type == "Gather"}
    return [weight for weight in graph.initializer if len(weight.dims) == 2 and weight.name not in looked_up]


def multiplies_activations(graph: GraphProto) -> bool:
    """Whether a product has two rounded activations for factors, neither of them a stored weight.

    An engine multiplies those as integers too: it looks for them behind what only moves numbers, and so does this.
    """
    made_by = {output: node for node in graph.node for output in node.output}
    stored = {each.name for each in graph.initializer}

    def rounded(name: str) -> bool:
        node = made_by.get(name)
        for _ in made_by:  # and no further: nodes of a damaged file may stand in a circle
            if node is None or node.op_type not in ("Reshape", "Transpose") or not node.input:
                break
            node = made_by.get(node.input[0])
        if node is None or node.op_type != "DequantizeLinear":
            return False
        return bool(node.input) and node.input[0] not in stored

    return any(all(map(rounded, node.input)) for node in graph.node if node.op_type == "MatMul")


def fill_zeros(path: Path, dense: Path) -> None:
    """Write the same fp32 graph without zeros in its matrices: noise as large as their other weights instead."""
    import onnx

    model = load(path)
    generator = np.random.default_rng(0)
    for weight in multiplied(model.graph):
        values = onnx.numpy_helper.to_array(weight).copy()
        zeros = values == 0
        if values.dtype.kind == "f" and zeros.any():
            size = float(values[~zeros].std()) if not zeros.all() else 0.02
            values[zeros] = generator.normal(0, size or 0.02, int(zeros.sum())).astype(values.dtype)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, dense)
