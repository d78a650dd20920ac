"""``python -m sparse_xp.benchmark``: how fast an exported file is, beside the dense fp32 model of its shape.

    python -m sparse_xp.benchmark run=RUN [against=RUN] [lengths=[32,128,384]] [batch=[1,32]] [threads=1]
        [engine=[onnxruntime,openvino]] [rounds=20] [out=DIR]

``model=DEPLOYMENT`` in place of ``run=``. ``against=``: the run or deployment folder to compare with; by default the
same graph with its zeros filled up. All files and engines take turns, round by round, in each as many calls as take
20 ms or longer; figures are medians over the rounds, ratios medians of each round's. Prints a table, and writes it as
JSON and as a chart (SVG) into ``out=`` (by default ``benchmark/`` in the run, or beside the folder).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from sparse_xp.cli import parse_key_values, parse_list, positive_integer, run_command
from sparse_xp.console import say
from sparse_xp.deployment.benchmark_report import check_output, write_report_files
from sparse_xp.deployment.bundle import max_tokens
from sparse_xp.deployment.engines import ENGINES, check_graph, choose_engines, fixed_shape, open_session
from sparse_xp.deployment.folder import bundle_from_options, check_bundle_files, find_bundle
from sparse_xp.deployment.graph import densify, inspect_graph
from sparse_xp.deployment.timing import BenchmarkOptions, measure_all
from sparse_xp.errors import UserError

KEYS = ("run", "model", "against", "lengths", "batch", "threads", "engine", "rounds", "out")
#: default sequence lengths; lengths above the maximum of the model are skipped
LENGTHS = (32, 128, 384)


def main(argv: list[str]) -> None:
    """Run the command."""
    values = parse_key_values(argv, KEYS)
    options = read_options(values)
    check_output(options.out)
    path = options.directory / "model.onnx"
    stats = inspect_graph(path)
    if stats.integers and not options.against:
        raise UserError(
            f"{path} computes with integers: no dense fp32 file can be made of it. Give against=DIR, the run or the "
            "deployment folder of the dense fp32 model (that of recipe=dense, say)."
        )
    if "engine" not in values:
        for name in sorted(set(ENGINES) - set(options.engines)):
            say(f"{name} is not installed and left out: pip install 'sparse-xp[{name}]'")
    with tempfile.TemporaryDirectory() as directory:
        if options.against:
            reference = options.against / "model.onnx"
        else:
            reference = Path(directory) / "dense.onnx"
            densify(path, reference)
        measurements = measure_all(options, reference)
    write_report_files(options, stats, measurements)


def default_lengths(most: int | None) -> list[int]:
    """Return those of ``LENGTHS`` that a model of at most so many tokens can read; ``most`` itself if none is."""
    return list(LENGTHS) if most is None else [length for length in LENGTHS if length <= most] or [most]


def read_options(values: dict[str, str]) -> BenchmarkOptions:
    """Return the options of the command. Raises UserError for values that are invalid, or do not fit the files."""
    lists = ("lengths", "batch", "threads")
    numbers = {key: [positive_integer(key, n) for n in parse_list(values[key])] for key in lists if key in values}
    engines = choose_engines(parse_list(values["engine"]) if "engine" in values else None)
    directory = bundle_from_options(values)
    against = find_bundle(Path(values["against"])) if "against" in values else None
    folders = [directory, *([against] if against else [])]
    for folder in folders:
        check_bundle_files(folder)
    most = min((tokens for folder in folders if (tokens := max_tokens(folder))), default=None)
    for folder in folders:
        use_fixed_shape(folder, numbers, values)
    for length in numbers.get("lengths", []):
        if length < 2 or (most is not None and length > most):
            raise UserError(
                f"lengths={length}: the model takes 2 {'or more' if most is None else f'to {most}'} tokens."
            )
    return BenchmarkOptions(
        directory=directory,
        against=against,
        engines=engines,
        lengths=numbers.get("lengths") or default_lengths(most),
        batches=numbers.get("batch") or [1, 32],
        threads=numbers.get("threads") or [1],
        rounds=positive_integer("rounds", values.get("rounds", "20")),
        out=Path(values.get("out") or default_out(values)),
    )


def use_fixed_shape(folder: Path, numbers: dict[str, list[int]], values: dict[str, str]) -> None:
    """Set ``batch`` and ``lengths`` in ``numbers`` to those that the file was exported for, if it has a fixed shape.

    ``values``: as typed. Raises UserError if they ask for another shape.
    """
    path = folder / "model.onnx"
    session = open_session(path, optimized=False)
    check_graph(path, session, ())
    for key, size in zip(("batch", "lengths"), fixed_shape(session), strict=True):
        if size and numbers.setdefault(key, [size]) != [size]:
            raise UserError(f"{key}={values.get(key, size)}: {path} was exported for {key}={size} alone.")


def default_out(values: dict[str, str]) -> Path:
    """Return where results go by default: never into a deployment folder, whose files are all listed."""
    parent = Path(values["run"]) if "run" in values else Path(values["model"]).resolve().parent
    return parent / "benchmark"


if __name__ == "__main__":
    run_command(main, __doc__)
