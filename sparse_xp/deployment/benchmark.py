"""``sparse_xp.benchmark``: how fast an exported file is, beside the dense fp32 model of its shape.

``python -m sparse_xp.benchmark`` calls it. ``timing`` measures, ``benchmark_report`` writes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparse_xp.deployment.benchmark_report import Measurements, check_output, write_report_files
from sparse_xp.deployment.bundle import max_tokens
from sparse_xp.deployment.engines import ENGINES, check_graph, choose_engines, fixed_shape, open_session
from sparse_xp.deployment.folder import check_bundle_files, find_bundle
from sparse_xp.deployment.graph import densify, inspect_graph
from sparse_xp.deployment.timing import BenchmarkOptions, measure_all
from sparse_xp.errors import UserError
from sparse_xp.files.ownership import read_marker
from sparse_xp.files.paths import check_creatable, checked_path

#: default sequence lengths; lengths above the maximum of the model are skipped
LENGTHS = (32, 128, 384)


def benchmark(
    directory: str | Path,
    *,
    against: str | Path | None = None,
    lengths: int | Sequence[int] | None = None,
    batch: int | Sequence[int] | None = None,
    threads: int | Sequence[int] = 1,
    engine: str | Sequence[str] | None = None,
    rounds: int = 20,
    out: str | Path | None = None,
) -> Measurements:
    """Measure how fast an exported file is, in milliseconds a call, and beside a reference.

    All files and engines take turns, round by round, in each as many calls as take 20 ms or longer. Figures are medians
    over the rounds, ratios medians of each round's.

    Args:
        directory: A deployment folder, or the directory of a finished run.
        against: The deployment folder or the run to compare with. None: the same graph with its zeros filled up.
        lengths: Numbers of tokens of a row. None: 32, 128 and 384, as far as the model can read them.
        batch: Numbers of rows of a call. None: 1 and 32.
        threads: Numbers of cores.
        engine: ``onnxruntime``, ``openvino`` or both. None: those that are installed.
        rounds: The number of rounds.
        out: The directory for ``benchmark.json`` and a chart, ``benchmark.svg``. None: no files are written.

    Raises:
        UserError: For a folder that is damaged or incomplete, for a value that does not fit the files or the machine,
            for a file of integers without ``against``, and for an ``out`` inside of a deployment folder.
    """
    source, other_source = checked_path("directory", directory), None
    if against is not None:
        other_source = checked_path("against", against)
    target = checked_output(out) if out is not None else None
    given = {"lengths": lengths, "batch": batch, "threads": threads}
    numbers = {name: checked_counts(name, value) for name, value in given.items() if value is not None}
    [rounds] = checked_counts("rounds", rounds)
    check_threads(numbers.get("threads", []))
    engines = choose_engines(checked_engines(engine))
    folder, other = find_bundle(source), find_bundle(other_source) if other_source is not None else None
    options = checked_options(folder, other, numbers, engines, rounds, target)
    stats = inspect_graph(options.file)
    if stats.integers and not options.against:
        raise UserError(
            f"{options.file} computes with integers: no dense fp32 file can be made of it. Give against=DIR, the run "
            "or the deployment folder of the dense fp32 model (that of recipe=dense, say)."
        )
    with tempfile.TemporaryDirectory() as temporary:
        if options.against:
            reference = options.against / "model.onnx"
        else:
            reference = Path(temporary) / "dense.onnx"
            densify(options.file, reference)
        measurements = Measurements(measure_all(options, reference), options, stats)
    if options.out:
        write_report_files(options.out, measurements)
    return measurements


def checked_counts(name: str, value: int | Sequence[int]) -> list[int]:
    """Return a number, or several, as a list without repetitions; numbers and arrays of numpy too.

    Raises UserError for anything but whole numbers of at least 1.
    """
    several = name != "rounds"
    plain: object = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    given: list[object] = list(plain) if isinstance(plain, Sequence) and several else [plain]
    given = [each.item() if isinstance(each, np.generic) else each for each in given]
    numbers = [number for number in given if type(number) is int and number > 0]
    if not numbers or len(numbers) < len(given):
        raise UserError(f"{name}={value!r}: expected a whole number of at least 1{', or several' * several}.")
    return list(dict.fromkeys(numbers))


def check_threads(threads: list[int]) -> None:
    """Raise UserError for more threads than this machine has cores: they would only wait for each other."""
    cores = os.cpu_count() or 1
    if threads and max(threads) > cores:
        raise UserError(f"threads={max(threads)}: this machine has {cores}. Write 1 to {cores}.")


def checked_engines(engine: object) -> list[str]:
    """Return the names of engines as a list without repetitions. Raises UserError for what is no name."""
    given = [engine] if isinstance(engine, str) else [] if engine is None else engine
    if not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise UserError(f"engine={engine!r}: expected a name, or several: {', '.join(ENGINES)}.")
    return list(dict.fromkeys(given))


def checked_output(out: object) -> Path:
    """Return the directory for the report. Raises UserError for one that cannot be written, or holds other files.

    A deployment folder lists its files: with others in it, no export would replace it any more.
    """
    path = checked_path("out", out)
    real = Path(os.path.realpath(path))
    for folder in (real, *real.parents):
        if read_marker(folder) not in (None, "run") or (folder / "model.onnx").is_file():
            raise UserError(
                f"out={path} is inside of {folder}, which tells of its own files alone. Name a directory beside it."
            )
    check_creatable("out", path)
    check_output(path)
    return path


def checked_options(
    directory: Path,
    against: Path | None,
    numbers: dict[str, list[int]],
    engines: list[str],
    rounds: int,
    out: Path | None,
) -> BenchmarkOptions:
    """Return the options. Raises UserError for damaged folders, and for ``numbers`` (by name) that do not fit them."""
    folders = [directory, *([against] if against else [])]
    for folder in folders:
        check_bundle_files(folder)
    most = min((tokens for folder in folders if (tokens := max_tokens(folder))), default=None)
    for folder in folders:
        use_fixed_shape(folder, numbers)
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
        rounds=rounds,
        out=out,
    )


def default_lengths(most: int | None) -> list[int]:
    """Return those of ``LENGTHS`` that a model of at most so many tokens can read; ``most`` itself if none is."""
    return list(LENGTHS) if most is None else [length for length in LENGTHS if length <= most] or [most]


def use_fixed_shape(folder: Path, numbers: dict[str, list[int]]) -> None:
    """Set ``batch`` and ``lengths`` in ``numbers`` to those that the file was exported for, if it has a fixed shape.

    Raises UserError if another shape is asked for.
    """
    path = folder / "model.onnx"
    session = open_session(path, optimized=False)
    check_graph(path, session, ())
    for key, size in zip(("batch", "lengths"), fixed_shape(session), strict=True):
        if size and numbers.setdefault(key, [size]) != [size]:
            asked = ",".join(map(str, numbers[key]))
            raise UserError(f"{key}={asked}: {path} was exported for {key}={size} alone.")
