"""Latency tables: what is asked for, and what costs follow from a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparse_xp.deployment.latency_measurement import sample_sizes
from sparse_xp.deployment.latency_table import (
    LatencySpec,
    interpolate,
    parse_specs,
    read_latency_tables,
    write_latency_tables,
)
from sparse_xp.errors import UserError
from tests.latency_tables import TABLE


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
