"""Latency tables: what is asked for, what is measured, what is kept, and whose machine it is from."""

from __future__ import annotations

import json
from dataclasses import replace

import onnxruntime
import pytest

from sparse_xp.cpu import this_cpu
from sparse_xp.deployment import latency_cache, latency_measurement
from sparse_xp.deployment.engines import DISABLED
from sparse_xp.deployment.latency_cache import find_tables
from sparse_xp.deployment.latency_graph import attention_block, embeddings_block, feed_forward_block, save_block
from sparse_xp.deployment.latency_measurement import measure_tables, sample_sizes
from sparse_xp.deployment.latency_table import (
    LatencySpec,
    interpolate,
    parse_specs,
    read_latency_tables,
    write_latency_tables,
)
from sparse_xp.errors import UserError
from sparse_xp.latency import main
from tests.latency_tables import SHAPE, TABLE


def test_what_is_asked_for():
    assert parse_specs("onnxruntime:int8:1x128") == [LatencySpec("onnxruntime", "int8", 1, 128)]
    assert parse_specs("openvino:fp32:32x384") == [LatencySpec("openvino", "fp32", 32, 384)]
    assert parse_specs("onnxruntime:auto:1x128") == [
        LatencySpec("onnxruntime", "fp32", 1, 128),
        LatencySpec("onnxruntime", "int8", 1, 128),
    ]


@pytest.mark.parametrize(
    "text", ["", "onnxruntime", "onnxruntime:int8", "ort:int8:1x128", "onnxruntime:int4:1x128", "onnxruntime:int8:128"]
)
def test_what_cannot_be_asked_for(text):
    with pytest.raises(ValueError, match="expected ENGINE:PRECISION:ROWSxTOKENS, such as onnxruntime:int8:1x128"):
        parse_specs(text)


def test_a_row_needs_tokens():
    with pytest.raises(ValueError, match="at least 1 row of 2 tokens"):
        parse_specs("onnxruntime:int8:0x128")


def test_between_what_was_measured():
    assert interpolate([(1, 2.0), (3, 4.0)], 4) == [2.0, 2.0, 3.0, 4.0, 4.0]
    assert interpolate([(3, 1.5), (1, 2.0), (2, 1.0)], 3) == [2.0] * 4  # noise: fewer are not slower
    assert sample_sizes(12, 1) == [1, 3, 4, 6, 7, 9, 10, 12]
    assert sample_sizes(4, 1) == [1, 2, 3, 4]
    assert sample_sizes(64, 16) == [16, 24, 32, 40, 48, 56, 64]


def test_a_table_is_costs():
    costs = TABLE.costs()
    assert costs.total([(2, 32), (4, 48)]) == pytest.approx(0.5 + 1.0 + 1.5 + 2.0 + 2.0)
    assert TABLE.dense_ms(2) == 4 * 2 + 6 * 2 + 1
    assert (len(costs.heads), len(costs.neurons)) == (5, 65)
    assert costs.total([(2, 32), (0, 0)]) == pytest.approx(0.5 + 1.0 + 1.5)  # a layer that is not there


def by_size(calls):
    """Milliseconds as long as the matrices of a graph are large, a third of that in integers."""
    return {key: (1 + key[1]) / (3000 if key[2] else 1000) for key in calls}


def test_it_is_measured_once(tmp_path, monkeypatch, capsys):
    [table] = find_tables("onnxruntime:int8:1x16", SHAPE, tmp_path)
    assert "measured in" in capsys.readouterr().out
    assert table.machine == str(this_cpu())
    assert [n for n, _ in table.attention] == [1, 2, 3, 4]
    assert [n for n, _ in table.feed_forward] == [16, 24, 32, 40, 48, 56, 64]
    assert all(ms >= 0 for _, ms in [*table.attention, *table.feed_forward])
    monkeypatch.setattr(latency_cache, "measure_tables", lambda *_: pytest.fail("measured again"))
    assert find_tables("onnxruntime:int8:1x16", SHAPE, tmp_path) == [table]
    assert "measured before" in capsys.readouterr().out
    with pytest.raises(BaseException, match="measured again"):
        find_tables("onnxruntime:int8:1x17", SHAPE, tmp_path)


def test_both_precisions_are_measured_together_and_only_what_is_missing(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        latency_measurement,
        "fastest_times",
        lambda calls: (seen.append({int8 for *_, int8 in calls}), by_size(calls))[1],
    )
    find_tables("onnxruntime:int8:1x16", SHAPE, tmp_path)
    fp32, int8 = find_tables("onnxruntime:auto:1x16", SHAPE, tmp_path)
    assert (fp32.spec.precision, int8.spec.precision) == ("fp32", "int8")
    assert find_tables("onnxruntime:auto:1x16", SHAPE, tmp_path) == [fp32, int8]
    assert seen == [{True, False}, {False}]  # the dense model in fp32 belongs to each


def test_what_is_timed_is_what_the_table_says(monkeypatch):
    monkeypatch.setattr(latency_measurement, "fastest_times", by_size)
    fp32, int8 = measure_tables(parse_specs("onnxruntime:auto:1x16"), SHAPE)
    assert fp32.attention == [(h, pytest.approx((1 + h) / 2)) for h in (1, 2, 3, 4)]
    assert int8.feed_forward[-1] == (64, pytest.approx(65 / 6))
    assert fp32.full == int8.full == (pytest.approx(5 / 2), pytest.approx(65 / 2), pytest.approx(1.0))


def test_a_table_of_another_machine_is_not_taken_for_this_one(tmp_path, monkeypatch):
    monkeypatch.setattr(latency_measurement, "fastest_times", by_size)
    other = replace(this_cpu(), stepping=77)
    with monkeypatch.context() as patch:
        for module in (latency_cache, latency_measurement):
            patch.setattr(module, "this_cpu", lambda: other)
        [table] = find_tables("onnxruntime:fp32:1x8", SHAPE, tmp_path)
    assert table.machine == str(other)
    [ours] = find_tables("onnxruntime:fp32:1x8", SHAPE, tmp_path)
    assert ours.machine == str(this_cpu())
    assert len(list(tmp_path.iterdir())) == 2


def test_a_named_table_may_be_of_another_machine(tmp_path, capsys):
    path, other = tmp_path / "table.json", replace(TABLE, machine="PDP-11, 1 cores")
    write_latency_tables([other], path)
    assert find_tables(str(path), SHAPE, tmp_path) == [other]
    assert "was measured on PDP-11, 1 cores; that is where the speed-up holds" in capsys.readouterr().out.replace(
        "\n", " "
    )
    with pytest.raises(UserError, match="is of layers of another shape"):
        find_tables(str(path), replace(SHAPE, heads=8), tmp_path)


def test_a_file_of_two_tables(tmp_path):
    both = [TABLE, replace(TABLE, spec=replace(TABLE.spec, precision="fp32"))]
    write_latency_tables(both, tmp_path / "table.json")
    assert read_latency_tables(tmp_path / "table.json") == both


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", "7", '{"spec": {"engine": "x"}}'])
def test_what_is_no_table(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(UserError, match=r"table\.json .*It should be a table that python -m sparse_xp\.latency made"):
        read_latency_tables(tmp_path / "table.json")
    with pytest.raises(UserError, match=r"no such file\. python -m sparse_xp\.latency makes one"):
        read_latency_tables(tmp_path / "other.json")


@pytest.mark.parametrize(("int8", "kernel"), [(True, "MatMulIntegerToFloat"), (False, "MatMul")])
def test_the_graphs_run_on_the_kernels_of_a_deployed_file(tmp_path, int8, kernel):
    """Else their times would say nothing of the file."""
    import onnx

    # Between two blocks one sees no MatMul that an Add has been merged with; the products of attention are two each.
    for name, made, matrices in (
        ("attention", attention_block(32, 2, 8, 16, 1, int8), 4),
        ("feed_forward", feed_forward_block(32, 16, 1, int8), 2),
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
        products = 0 if int8 or name != "attention" else 2
        assert sum(kind in (kernel, "FusedMatMul") for kind in kinds if int8 or kind != "Gemm") >= matrices
        assert kinds.count(kernel) <= matrices + products


def test_the_command(tmp_path, capsys):
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=30, hidden_size=32, num_attention_heads=4, intermediate_size=64, num_hidden_layers=2)
    BertModel(config).save_pretrained(tmp_path / "model")
    main([f"model={tmp_path}/model", "latency=onnxruntime:auto:1x16", f"out={tmp_path}/both.json"])
    assert [table.spec.precision for table in read_latency_tables(tmp_path / "both.json")] == ["fp32", "int8"]
    assert "fp32, 2 heads, 32 neurons:" in capsys.readouterr().out
    main([f"model={tmp_path}/model", "latency=onnxruntime:int8:1x16", f"out={tmp_path}/table.json"])
    assert read_latency_tables(tmp_path / "table.json")[0].shape == SHAPE
    assert json.loads((tmp_path / "table.json").read_text())["machine"] == str(this_cpu())
    assert "int8, 2 heads, 32 neurons:" in capsys.readouterr().out
    with pytest.raises(UserError, match="out= is missing"):
        main([f"model={tmp_path}/model", "latency=onnxruntime:int8:1x16"])
    with pytest.raises(UserError, match="expected ENGINE:PRECISION"):
        main([f"model={tmp_path}/model", "latency=fast", f"out={tmp_path}/x.json"])
