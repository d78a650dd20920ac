"""Read the one latency of a run that tables show, from the file that ``python -m sparse_xp.benchmark`` wrote."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from sparse_xp.files.reading import explain_read_errors
from sparse_xp.schema import check_types


@dataclass(frozen=True)
class Latency:
    """The time of a batch of one row of ``tokens`` tokens, and how many times as fast as its reference that is.

    ``low``, ``high``: the quartiles of the ratio; None in files of earlier versions.
    """

    engine: str
    tokens: int
    ms: float
    ratio: float
    machine: str
    low: float | None = None
    high: float | None = None

    @property
    def differs(self) -> bool:
        """Whether 1 lies outside the quartiles."""
        return self.low is None or self.high is None or not self.low <= 1 <= self.high


def read_latency(run_directory: Path) -> Latency | None:
    """Return the latency in ``benchmark/benchmark.json`` of a run; None if the run was not benchmarked.

    Of several measurements it is the one of onnxruntime, with the smallest batch, the fewest threads and the longest
    rows. Raises UserError for a damaged file.
    """
    path = run_directory / "benchmark" / "benchmark.json"
    if not os.path.lexists(path):
        return None
    with explain_read_errors(path, "Make it anew with python -m sparse_xp.benchmark, or move it away."):
        stored = json.loads(path.read_text(encoding="utf-8"))
        measurement = max(
            stored["cells"],
            key=lambda cell: (cell["engine"] == "onnxruntime", -cell["batch"], -cell["threads"], cell["length"]),
        )
        latency = Latency(
            engine=measurement["engine"],
            tokens=measurement["length"],
            ms=measurement["ms"],
            ratio=measurement["ratio"],
            machine=stored["machine"],
            low=measurement.get("low"),
            high=measurement.get("high"),
        )
        check_types(latency)
        return latency
