"""Which latency tables a run gets: those of a file, of the cache, or measured now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparse_xp.cpu import this_cpu
from sparse_xp.deployment import latency_cache, latency_measurement
from sparse_xp.deployment.latency_cache import find_tables
from sparse_xp.deployment.latency_table import (
    write_latency_tables,
)
from sparse_xp.errors import UserError
from tests.latency_tables import SHAPE, TABLE, by_size


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
