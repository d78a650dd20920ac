"""``python -m sparse_xp.benchmark``: how fast an exported file is, beside the dense fp32 model of its shape.

    python -m sparse_xp.benchmark run=RUN [against=RUN] [lengths=[32,128,384]] [batch=[1,32]] [threads=1]
        [engine=[onnxruntime,openvino]] [rounds=20] [out=DIR]

``model=DEPLOYMENT`` in place of ``run=``. ``against=``: the run or deployment folder to compare with; by default the
same graph with its zeros filled up. All files and engines take turns, round by round, in each as many calls as take
20 ms or longer; figures are medians over the rounds, ratios medians of each round's. Prints a table, and writes it as
JSON and as a chart (SVG) into ``out=`` (by default ``benchmark/`` in the run, or beside the folder).
"""

from __future__ import annotations

from pathlib import Path

from sparse_xp.cli import parse_key_values, parse_list, positive_integer
from sparse_xp.console import say
from sparse_xp.deployment.benchmark import benchmark
from sparse_xp.deployment.benchmark_report import FILES
from sparse_xp.deployment.engines import ENGINES
from sparse_xp.deployment.folder import bundle_from_options

KEYS = ("run", "model", "against", "lengths", "batch", "threads", "engine", "rounds", "out")


def main(argv: list[str]) -> None:
    """Run the command."""
    values = parse_key_values(argv, KEYS)
    numbers = {
        key: [positive_integer(key, number) for number in parse_list(values[key])]
        for key in ("lengths", "batch", "threads")
        if key in values
    }
    rounds = positive_integer("rounds", values.get("rounds", "20"))
    engines = parse_list(values["engine"]) if "engine" in values else None
    out = Path(values.get("out") or default_out(values))
    measured = benchmark(
        bundle_from_options(values),
        against=values.get("against"),
        lengths=numbers.get("lengths") or None,
        batch=numbers.get("batch") or None,
        threads=numbers.get("threads") or [1],
        engine=engines,
        rounds=rounds,
        out=out,
    )
    say(f"{measured}\n\n{', '.join(str(out / name) for name in FILES)}")
    for name in sorted(set(ENGINES) - set(measured.options.engines)) if engines is None else ():
        say(f"{name} is not installed and left out: pip install 'sparse-xp[{name}]'")


def default_out(values: dict[str, str]) -> Path:
    """Return where results go by default: never into a deployment folder, whose files are all listed."""
    parent = Path(values["run"]) if "run" in values else Path(values["model"]).resolve().parent
    return parent / "benchmark"
