"""The blocks that are timed, and what their times become in a table."""

from __future__ import annotations

import onnxruntime
import pytest

from sparse_xp.deployment import latency_measurement
from sparse_xp.deployment.engines import DISABLED
from sparse_xp.deployment.latency_graph import attention_block, embeddings_block, feed_forward_block, save_block
from sparse_xp.deployment.latency_measurement import measure_tables
from sparse_xp.deployment.latency_table import (
    parse_specs,
)
from sparse_xp.functional.cost_model import LayerShape
from tests.latency_tables import SHAPE, by_size


def test_what_is_timed_is_what_the_table_says(monkeypatch):
    monkeypatch.setattr(latency_measurement, "fastest_times", by_size)
    fp32, int8 = measure_tables(parse_specs("onnxruntime:auto:1x16"), SHAPE)
    assert fp32.attention == [(h, pytest.approx((1 + h) / 2)) for h in (1, 2, 3, 4)]
    assert int8.feed_forward[-1] == (64, pytest.approx(65 / 6))
    assert fp32.full == int8.full == (pytest.approx(5 / 2), pytest.approx(65 / 2), pytest.approx(1.0))


@pytest.mark.parametrize(("int8", "kernel"), [(True, "MatMulIntegerToFloat"), (False, "MatMul")])
@pytest.mark.parametrize(
    "shape",
    [
        LayerShape(32, 4, 8, 16),
        LayerShape(32, 4, 8, 16, gated=True),
        LayerShape(32, 4, 8, 16, relative_positions=12),
    ],
    ids=["bert", "gated", "relative"],
)
def test_the_graphs_run_on_the_kernels_of_a_deployed_file(tmp_path, int8, kernel, shape):
    """Else their times would say nothing of the file."""
    import onnx

    # Between two blocks one sees no MatMul that an Add has been merged with; the products of attention are two each.
    for name, made, matrices in (
        ("attention", attention_block(shape, 2, 16, 1, int8), 4),
        ("feed_forward", feed_forward_block(shape, 16, 1, int8), shape.rows_per_neuron),
        ("embeddings", embeddings_block(32, 16, int8), 0),
    ):
        path, optimized = tmp_path / f"{name}.onnx", tmp_path / f"{name}.optimized.onnx"
        save_block(made, path)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimized)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED
        )
        kinds = [node.op_type for node in onnx.load(optimized).graph.node]
        # The keys and queries of relative positions are constants, which the engine computes once.
        products = 0 if int8 or name != "attention" else 4 if shape.relative_positions else 2
        assert sum(kind in (kernel, "FusedMatMul") for kind in kinds if int8 or kind != "Gemm") >= matrices
        assert kinds.count(kernel) <= matrices + products
