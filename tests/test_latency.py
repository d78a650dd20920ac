"""Latency tables: what is asked for, what is measured, what is kept, and whose machine it is from."""

from __future__ import annotations

import json
from dataclasses import replace

import onnxruntime
import pytest

from sparse_xp import latency
from sparse_xp.benchmark import machine
from sparse_xp.costs import Shape
from sparse_xp.engines import DISABLED
from sparse_xp.errors import UserError
from sparse_xp.latency import (
    Spec,
    Table,
    find_table,
    interpolated,
    main,
    measure,
    parse_spec,
    points,
    read_table,
    write_table,
)
from sparse_xp.latency_graph import attention, embeddings, feed_forward, save

SHAPE = Shape(hidden=32, heads=4, head_size=8, neurons=64)
TABLE = Table(
    spec=Spec("onnxruntime", "int8", 1, 16),
    shape=SHAPE,
    machine=machine(),
    version="1",
    full=(4.0, 6.0, 1.0),
    attention=[(1, 0.5), (3, 1.5), (4, 2.0)],
    feed_forward=[(16, 1.0), (32, 1.5), (64, 2.5)],
    embeddings=0.5,
)


def test_what_is_asked_for():
    assert parse_spec("onnxruntime:int8:1x128") == Spec("onnxruntime", "int8", 1, 128)
    assert parse_spec("openvino:fp32:32x384") == Spec("openvino", "fp32", 32, 384)


@pytest.mark.parametrize(
    "text", ["", "onnxruntime", "onnxruntime:int8", "ort:int8:1x128", "onnxruntime:int4:1x128", "onnxruntime:int8:128"]
)
def test_what_cannot_be_asked_for(text):
    with pytest.raises(ValueError, match="want ENGINE:PRECISION:ROWSxTOKENS, such as onnxruntime:int8:1x128"):
        parse_spec(text)


def test_a_row_needs_tokens():
    with pytest.raises(ValueError, match="at least 1 row of 2 tokens"):
        parse_spec("onnxruntime:int8:0x128")


def test_between_what_was_measured():
    assert interpolated([(1, 2.0), (3, 4.0)], 4) == [2.0, 2.0, 3.0, 4.0, 4.0]
    assert interpolated([(3, 1.5), (1, 2.0), (2, 1.0)], 3) == [2.0] * 4  # noise: fewer are not slower
    assert points(12, 1) == [1, 3, 4, 6, 7, 9, 10, 12]
    assert points(4, 1) == [1, 2, 3, 4]
    assert points(64, 16) == [16, 24, 32, 40, 48, 56, 64]


def test_a_table_is_costs():
    costs = TABLE.costs()
    assert costs.total([(2, 32), (4, 48)]) == pytest.approx(0.5 + 1.0 + 1.5 + 2.0 + 2.0)
    assert TABLE.dense(2) == 4 * 2 + 6 * 2 + 1
    assert (len(costs.heads), len(costs.neurons)) == (5, 65)
    assert costs.total([(2, 32), (0, 0)]) == pytest.approx(0.5 + 1.0 + 1.5)  # a layer that is not there


def test_it_is_measured_once(tmp_path, monkeypatch, capsys):
    table = find_table("onnxruntime:int8:1x16", SHAPE, tmp_path)
    assert "measured in" in capsys.readouterr().out
    assert table.machine == machine()
    assert [n for n, _ in table.attention] == [1, 2, 3, 4]
    assert [n for n, _ in table.feed_forward] == [16, 24, 32, 40, 48, 56, 64]
    assert all(ms > 0 for _, ms in [*table.attention, *table.feed_forward])
    assert min(table.full) > 0
    monkeypatch.setattr(latency, "measure", lambda *_: pytest.fail("measured again"))
    assert find_table("onnxruntime:int8:1x16", SHAPE, tmp_path) == table
    assert "measured before" in capsys.readouterr().out
    with pytest.raises(BaseException, match="measured again"):
        find_table("onnxruntime:int8:1x17", SHAPE, tmp_path)


def test_more_heads_and_neurons_take_longer():
    table = measure(Spec("onnxruntime", "fp32", 1, 64), Shape(128, 8, 16, 1024))
    for pairs in (table.attention, table.feed_forward):
        assert pairs[-1][1] > 1.5 * pairs[0][1]
    assert table.full[1] == table.feed_forward[-1][1]


def test_a_kept_table_of_another_machine_is_refused(tmp_path):
    find_table("onnxruntime:fp32:1x8", SHAPE, tmp_path)
    [path] = tmp_path.iterdir()
    write_table(replace(read_table(path), machine="PDP-11, 1 cores"), path)
    with pytest.raises(UserError, match=r"was measured on another machine \(PDP-11, 1 cores; this one is .*latency="):
        find_table("onnxruntime:fp32:1x8", SHAPE, tmp_path)


def test_a_named_table_may_be_of_another_machine(tmp_path, capsys):
    path = tmp_path / "table.json"
    write_table(replace(TABLE, machine="PDP-11, 1 cores"), path)
    assert find_table(str(path), SHAPE, tmp_path) == replace(TABLE, machine="PDP-11, 1 cores")
    assert "was measured on PDP-11, 1 cores; that is where the speed-up holds" in capsys.readouterr().out.replace(
        "\n", " "
    )
    with pytest.raises(UserError, match="is of layers of another shape"):
        find_table(str(path), replace(SHAPE, heads=8), tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"spec": {"engine": "x"}}'])
def test_what_is_no_table(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(UserError, match="is no latency table"):
        read_table(tmp_path / "table.json")
    with pytest.raises(UserError, match=r"no such file\. python -m sparse_xp\.latency makes one"):
        read_table(tmp_path / "other.json")


@pytest.mark.parametrize(("int8", "kernel"), [(True, "MatMulIntegerToFloat"), (False, "MatMul")])
def test_the_graphs_run_on_the_kernels_of_a_deployed_file(tmp_path, int8, kernel):
    """Else their times would say nothing of the file."""
    import onnx

    # Between two blocks one sees no MatMul that an Add has been merged with; the products of attention are two each.
    for name, made, matrices in (
        ("attention", attention(32, 2, 8, 16, 1, int8), 4),
        ("feed_forward", feed_forward(32, 16, 1, int8), 2),
        ("embeddings", embeddings(32, 16, int8), 0),
    ):
        path, optimized = tmp_path / f"{name}.onnx", tmp_path / f"{name}.optimized.onnx"
        save(made, path)
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
    main([f"model={tmp_path}/model", "latency=onnxruntime:int8:1x16", f"out={tmp_path}/table.json"])
    assert read_table(tmp_path / "table.json").shape == SHAPE
    assert json.loads((tmp_path / "table.json").read_text())["machine"] == machine()
    assert "2 heads, 32 neurons:" in capsys.readouterr().out
    with pytest.raises(UserError, match="out= is missing"):
        main([f"model={tmp_path}/model", "latency=onnxruntime:int8:1x16"])
    with pytest.raises(UserError, match="want ENGINE:PRECISION"):
        main([f"model={tmp_path}/model", "latency=fast", f"out={tmp_path}/x.json"])
