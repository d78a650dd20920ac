"""Zeros and integers of a graph made by hand, and its dense twin."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparse_xp.deployment.graph import densify, inspect_graph
from sparse_xp.errors import UserError

WEIGHT = np.array([[0, 2, 0, -2], [0, 4, 0, 0]], np.float32).T  # 5 of 8 are zero
TABLE = np.zeros((10, 4), np.float32)


@pytest.fixture
def path(tmp_path):
    """Rows of a table of zeros, looked up, times WEIGHT."""
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"]), helper.make_node("MatMul", ["rows", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(TABLE, "table")],
    )
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_zeros_are_those_of_multiplied_matrices(path):
    stats = inspect_graph(path)
    assert stats.zeros == pytest.approx(5 / 8)
    assert not stats.integers


def test_the_dense_twin_has_the_same_weights_and_noise_for_zeros(path, tmp_path):
    densify(path, tmp_path / "dense.onnx")
    assert inspect_graph(tmp_path / "dense.onnx").zeros == 0
    found = {each.name: numpy_helper.to_array(each) for each in onnx.load(tmp_path / "dense.onnx").graph.initializer}
    np.testing.assert_array_equal(found["w"][WEIGHT != 0], WEIGHT[WEIGHT != 0])
    np.testing.assert_array_equal(found["table"], TABLE)
    assert found["w"].dtype == np.float32
    assert (tmp_path / "dense.onnx").stat().st_size == path.stat().st_size


def test_integers_are_seen(path, tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(path, tmp_path / "int8.onnx", op_types_to_quantize=["MatMul"])
    stats = inspect_graph(tmp_path / "int8.onnx")
    assert stats.integers
    assert stats.zeros == pytest.approx(5 / 8)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 50, None])
def test_a_file_that_is_no_graph(path, content):
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    for read in (inspect_graph, lambda path: densify(path, path.with_name("dense.onnx"))):
        with pytest.raises(UserError, match=r"model\.onnx is damaged"):
            read(path)
    path.unlink()
    with pytest.raises(UserError, match=r"model\.onnx is missing"):
        inspect_graph(path)


def test_nodes_in_a_circle_and_without_inputs(path):
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Reshape", ["round"], ["round"]))
    model.graph.node.append(helper.make_node("MatMul", ["round", "round"], ["z"]))
    model.graph.node.extend(helper.make_node(kind, [], []) for kind in ("Gather", "DequantizeLinear", "MatMul"))
    onnx.save(model, path)
    assert inspect_graph(path).zeros == pytest.approx(5 / 8)
