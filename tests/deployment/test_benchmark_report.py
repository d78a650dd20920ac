"""What a benchmark concludes from its ratios."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from sparse_xp.deployment import benchmark_report
from sparse_xp.deployment.benchmark_report import describe_ratios
from sparse_xp.deployment.graph import GraphStats
from sparse_xp.deployment.timing import Measurement


def made(ratio, engine="onnxruntime"):
    return Measurement(engine, 1, 1, 32, 1.0, ratio, 1000.0, ratio, ratio, ratio)


@pytest.mark.parametrize(
    ("ratio", "inside", "against", "told"),
    [
        (
            1.04,
            GraphStats(0.8, False),
            None,
            "1.04 (1.04 to 1.04) times as fast as the same graph without zeros on a CPU: it gains",
        ),
        (
            0.95,
            GraphStats(0.8, False),
            Path("a"),
            "the file of a on a CPU: it gains nothing from zeros (80.0% of",
        ),
        (
            1.0,
            GraphStats(0.8, True),
            Path("a"),
            "the file of a on a CPU: it gains nothing there from integers or zeros.",
        ),
        (2.5, GraphStats(0.8, True), Path("a"), "2.50 (2.50 to 2.50) times as fast as the file of a on a CPU."),
        (1.01, GraphStats(0.0, False), None, "the file has no zeros and is compared with itself"),
        (1.5, GraphStats(0.0, False), Path("a"), "1.50 (1.50 to 1.50) times as fast as the file of a on a CPU."),
    ],
)
def test_what_ratios_mean(monkeypatch, ratio, inside, against, told):
    monkeypatch.setattr(benchmark_report, "this_cpu", lambda: SimpleNamespace(short="a CPU"))
    assert told in describe_ratios("onnxruntime", [made(ratio), made(9.0, "openvino")], inside, against)
