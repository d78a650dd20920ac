"""What a benchmark concludes from its ratios."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from sparse_xp.deployment import benchmark_report
from sparse_xp.deployment.benchmark_report import REMEDY, bar_label, describe_ratios, draw_conclusions, verdict
from sparse_xp.deployment.graph import GraphStats
from sparse_xp.deployment.timing import Measurement


def made(ratio, engine="onnxruntime", low=None, high=None):
    return Measurement(engine, 1, 1, 32, 1.0, ratio, 1000.0, ratio, low or ratio, high or ratio)


@pytest.mark.parametrize(
    ("ratio", "inside", "against", "told"),
    [
        (
            1.04,
            GraphStats(0.8, False),
            None,
            "1.04 (quartiles 1.04 to 1.04) times as fast as the same graph without zeros on a CPU: it gains",
        ),
        (
            0.95,
            GraphStats(0.8, False),
            Path("a"),
            "the file of a on a CPU: it gains hardly anything from zeros (80.0% of",
        ),
        (
            1.0,
            GraphStats(0.8, True),
            Path("a"),
            "the file of a on a CPU: it gains nothing there from integers or zeros.",
        ),
        (
            2.5,
            GraphStats(0.8, True),
            Path("a"),
            "2.50 (quartiles 2.50 to 2.50) times as fast as the file of a on a CPU.",
        ),
        (1.01, GraphStats(0.0, False), None, "the file has no zeros and is compared with itself"),
        (
            1.5,
            GraphStats(0.0, False),
            Path("a"),
            "1.50 (quartiles 1.50 to 1.50) times as fast as the file of a on a CPU.",
        ),
    ],
)
def test_what_ratios_mean(monkeypatch, ratio, inside, against, told):
    monkeypatch.setattr(benchmark_report, "this_cpu", lambda: SimpleNamespace(short="a CPU"))
    assert told in describe_ratios("onnxruntime", [made(ratio), made(9.0, "openvino")], inside, against)


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        (
            [(1.16, 0.97, 1.20)],
            "onnxruntime: no difference measured (quartiles 0.97 to 1.20) to the same graph without zeros on a CPU. "
            "More rounds (rounds=) narrow the quartiles.",
        ),
        (
            [(1.16, 1.01, 1.20)],
            "onnxruntime: 1.16 (quartiles 1.01 to 1.20) times as fast as the same graph without zeros on a CPU.",
        ),
        (
            [(0.8, 0.7, 0.99)],
            "onnxruntime: 0.80 (quartiles 0.70 to 0.99) times as fast as the same graph without zeros on a CPU.",
        ),
        (
            [(1.0, 0.98, 1.03), (1.02, 0.99, 1.05)],
            "onnxruntime: no difference measured (quartiles 0.98 to 1.05) to the same graph without zeros on a CPU: it "
            "gains nothing from zeros (80.0% of what it multiplies by): it multiplies by them as by any other number.",
        ),
        (
            [(1.16, 0.97, 1.20), (1.3, 1.2, 1.4), (1.5, 1.4, 1.6)],
            "onnxruntime: 1.40 (1.30 to 1.50 over 2 shapes) times as fast as the same graph without zeros on a CPU, in "
            "2 of 3 shapes; no difference measured in the others.",
        ),
    ],
)
def test_a_ratio_is_a_difference_where_its_quartiles_exclude_1(monkeypatch, measured, told):
    monkeypatch.setattr(benchmark_report, "this_cpu", lambda: SimpleNamespace(short="a CPU"))
    rounds = [made(ratio, low=low, high=high) for ratio, low, high in measured]
    assert describe_ratios("onnxruntime", rounds, GraphStats(0.8, False), None) == told


def test_the_table_and_the_chart_say_the_same():
    noise, faster, slower = (
        made(1.16, low=0.97, high=1.2),
        made(1.16, low=1.01, high=1.2),
        made(0.9, low=0.8, high=0.95),
    )
    measured = (noise, faster, slower)
    assert [verdict(each, 10) for each in measured] == ["no difference measured", "faster", "slower"]
    assert [bar_label(each, 10) for each in (noise, faster)] == ["no difference, 1.0 ms", "1.16x, 1.0 ms"]
    assert {verdict(each, 9) for each in measured} == {"too few rounds"}
    assert [bar_label(each, 9) for each in (noise, faster)] == ["1.16x, 1.0 ms"] * 2


@pytest.mark.parametrize(("integers", "advised"), [(False, True), (True, False)])
def test_what_would_be_faster_is_said_where_zeros_gain_nothing(integers, advised):
    options = SimpleNamespace(engines=["onnxruntime"], against=Path("a"), rounds=20)
    noise = made(1.16, low=0.97, high=1.2)
    assert (REMEDY in draw_conclusions(options, [noise], GraphStats(0.8, integers))) == advised
