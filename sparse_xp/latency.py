"""``python -m sparse_xp.latency``: how long a layer takes with so many heads and neurons, on an engine, as a table.

    python -m sparse_xp.latency model=DIR_OR_HUB_ID latency=onnxruntime:int8:1x128 out=FILE.json

``latency``: ENGINE:PRECISION:ROWSxTOKENS, one thread. PRECISION is fp32, int8, or auto for both, between which the run
chooses (``target_cpu``). A run with ``sparsity.target_speedup=`` measures such a table itself, once, and keeps it under
``data.cache``. One that was measured elsewhere, where the model is to be used, is named:
``sparsity.latency=FILE.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparse_xp.benchmark import WARM
from sparse_xp.cli import command, split
from sparse_xp.console import say
from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.engines import ENGINES, Batch, Call, choose, versions
from sparse_xp.errors import UserError
from sparse_xp.files import claim, free_name, reading, write_text
from sparse_xp.functional.cost_model import Costs, Shape

PRECISIONS = ("fp32", "int8")
ROUNDS = 15
#: the tables that a run goes by, in its directory
TABLES = "latency.json"
#: blocks in one graph, so that what a call costs besides counts little
COPIES = 2
#: into how many parts the heads and the neurons of a layer are divided, at most; between them one interpolates
POINTS = 8
_SPEC = re.compile(r"(?P<engine>\w+):(?P<precision>\w+):(?P<rows>\d+)x(?P<tokens>\d+)")


@dataclass(frozen=True)
class Spec:
    """What is measured: ``rows`` of ``tokens`` in one call."""

    engine: str
    precision: str
    rows: int
    tokens: int


@dataclass(frozen=True)
class Table:
    """Milliseconds of a block of each kind. ``full``: attention, feed-forward, embeddings of the dense model in fp32.

    ``attention``: pairs of heads and milliseconds, ``feed_forward``: of neurons and milliseconds, ascending.
    """

    spec: Spec
    shape: Shape
    machine: str
    version: str
    full: tuple[float, float, float]
    attention: list[tuple[int, float]]
    feed_forward: list[tuple[int, float]]
    embeddings: float

    def costs(self) -> Costs:
        """For every number of heads and neurons: linear between those that were measured, and never falling; 0 of 0."""
        return Costs(
            heads=[0.0, *interpolated(self.attention, self.shape.heads)[1:]],
            neurons=[0.0, *interpolated(self.feed_forward, self.shape.neurons)[1:]],
            rest=self.embeddings,
        )

    def costs_of(self, dimensions: int | None) -> Costs:
        """The same for a model whose embeddings are factored, with a matrix from so many ``dimensions``."""
        return self.costs() if dimensions is None else self.costs().with_map(dimensions)

    def dense(self, layers: int) -> float:
        """Milliseconds of the whole dense model in fp32."""
        attention, feed_forward, embeddings = self.full
        return layers * (attention + feed_forward) + embeddings


def parse_specs(text: str) -> list[Spec]:
    """``onnxruntime:int8:1x128`` as what it says, ``auto`` as both. Raises ValueError for another text."""
    found = _SPEC.fullmatch(text.strip())
    if not found or found["engine"] not in ENGINES or found["precision"] not in (*PRECISIONS, "auto"):
        raise ValueError(
            f"latency={text}: want ENGINE:PRECISION:ROWSxTOKENS, such as onnxruntime:int8:1x128 (engines "
            f"{', '.join(ENGINES)}; {', '.join(PRECISIONS)} or auto), or FILE.json, which python -m sparse_xp.latency "
            "wrote."
        )
    rows, tokens = int(found["rows"]), int(found["tokens"])
    if rows < 1 or tokens < 2:
        raise ValueError(f"latency={text}: want at least 1 row of 2 tokens.")
    precisions = PRECISIONS if found["precision"] == "auto" else (found["precision"],)
    return [Spec(found["engine"], precision, rows, tokens) for precision in precisions]


def is_file(text: str) -> bool:
    """Whether ``latency`` names a table rather than what is to be measured."""
    return text.endswith(".json")


def interpolated(points: list[tuple[int, float]], most: int) -> list[float]:
    """A value for each of 0 to ``most``; noise must not make more look faster than less."""
    numbers, values = zip(*sorted(points), strict=True)
    return [float(x) for x in np.maximum.accumulate(np.interp(range(most + 1), numbers, values))]


def tables_of_run(directory: Path, latency: str, shape: Shape, cache: Path) -> list[Table]:
    """The tables that the run in ``directory`` goes by: those it began with, on whatever CPU it goes on.

    Raises UserError as ``find_tables`` does.
    """
    if not (directory / TABLES).is_file():
        found = find_tables(latency, shape, cache)
        directory.mkdir(parents=True, exist_ok=True)
        write_tables(found, directory / TABLES)
    return read_tables(directory / TABLES)


def find_tables(latency: str, shape: Shape, cache: Path) -> list[Table]:
    """The tables that ``latency`` names: of a file, or kept in ``cache``, or measured now and kept there.

    Raises UserError for a table of another shape.
    """
    if is_file(latency):
        tables = read_tables(Path(latency))
        for table in tables:
            if table.shape != shape:
                raise UserError(f"{latency} is of layers of another shape: {table.shape}, and the model has {shape}.")
        if tables[0].machine != str(this_cpu()):
            say(f"latency: {latency} was measured on {tables[0].machine}; that is where the speed-up holds")
        return tables
    specs = parse_specs(latency)
    choose([specs[0].engine])
    paths = {spec: cache / kept_name(spec, shape) for spec in specs}
    missing = [spec for spec, path in paths.items() if not is_whole(path)]
    began = time.perf_counter()
    for table in measure(missing, shape) if missing else ():
        paths[table.spec].parent.mkdir(parents=True, exist_ok=True)
        write_tables([table], paths[table.spec])
    for spec, path in paths.items():
        how = f"measured in {time.perf_counter() - began:.0f} s" if spec in missing else "measured before"
        say(f"latency: {path}, {how}")
    return [read_tables(path)[0] for path in paths.values()]


def is_whole(path: Path) -> bool:
    """Whether there is a table that can be read; says so of a damaged one, which is moved aside."""
    if not os.path.lexists(path):
        return False
    try:
        read_tables(path)
        return True
    except UserError as error:
        kept = free_name(path, "damaged")
        os.rename(path, kept)
        say(f"{error} It is measured again, and what was there is in {kept}.")
        return False


def is_table(path: Path) -> bool:
    """Whether ``path`` is a file that ``write_tables`` wrote."""
    try:
        return bool(read_tables(path))
    except UserError:
        return False


def kept_name(spec: Spec, shape: Shape) -> str:
    """The name of a table in the cache: what was measured, with which version of the engine, on which CPU."""
    version = versions([spec.engine])[spec.engine]
    sizes = f"{shape.hidden}-{shape.heads}x{shape.head_size}-{shape.neurons}"
    cpu = f"{this_cpu().kind}-{hashlib.sha256(str(this_cpu()).encode()).hexdigest()[:8]}"
    return f"{spec.engine}-{version}-{spec.precision}-{spec.rows}x{spec.tokens}-{sizes}-{cpu}.json"


def write_tables(tables: list[Table], path: Path) -> None:
    """As JSON: a table, or a list of several."""
    told = [asdict(table) for table in tables]
    write_text(path, json.dumps(told[0] if len(told) == 1 else told, indent=1) + "\n")


def read_tables(path: Path) -> list[Table]:
    """Raises UserError for a file that is not there or has no table."""
    if not os.path.lexists(path):
        raise UserError(f"latency={path}: no such file. python -m sparse_xp.latency makes one.")
    with reading(path, "It should be a table that python -m sparse_xp.latency made."):
        raw = json.loads(path.read_text(encoding="utf-8"))
        tables = [table_of(each) for each in (raw if isinstance(raw, list) else [raw])]
        if not tables:
            raise ValueError("an empty list")
        return tables


def table_of(raw: Any) -> Table:
    """A table from its fields. Raises ValueError, KeyError or TypeError for others."""
    raw |= {"spec": Spec(**raw["spec"]), "shape": Shape(**raw["shape"]), "full": tuple(raw["full"])}
    raw |= {name: [(int(n), float(ms)) for n, ms in raw[name]] for name in ("attention", "feed_forward")}
    return Table(**raw)


def measure(specs: list[Spec], shape: Shape) -> list[Table]:
    """Time graphs of one block each, in turn; ``specs`` differ in their precision alone.

    It is the time of the processor: on one thread that is the latency, but for what else runs on the machine.
    """
    from sparse_xp.deployment.latency_graph import attention, embeddings, feed_forward, save

    engine, rows, tokens, hidden = specs[0].engine, specs[0].rows, specs[0].tokens, shape.hidden
    states = np.random.default_rng(0).normal(0, 1, (rows, tokens, hidden)).astype(np.float32)
    numbers = np.random.default_rng(0).integers(0, 1000, (rows, tokens))
    heads, neurons = points(shape.heads, 1), points(shape.neurons, min(16, shape.neurons))
    size = shape.head_size
    graphs = {
        "attention": lambda count, int8: attention(hidden, count, size, tokens, COPIES, int8),
        "feed_forward": lambda count, int8: feed_forward(hidden, count, COPIES, int8),
        "embeddings": lambda count, int8: embeddings(hidden, tokens, int8),
    }
    dense = [("attention", shape.heads, False), ("feed_forward", shape.neurons, False), ("embeddings", 0, False)]
    cases = [
        (kind, count, spec.precision == "int8")
        for spec in specs
        for kind, counts in (("attention", heads), ("feed_forward", neurons), ("embeddings", [0]))
        for count in counts
    ]
    with tempfile.TemporaryDirectory() as place:
        calls: dict[tuple[str, int, bool], tuple[Call, Batch]] = {}
        for key in dict.fromkeys([*cases, *dense]):
            kind, count, integers = key
            path = Path(place) / "block.onnx"
            save(graphs[kind](count, integers), path)
            inputs = {"numbers": numbers} if kind == "embeddings" else {"states": states}
            calls[key] = ENGINES[engine](path, 1), inputs
            path.unlink()
        ms = {key: value * 1e3 for key, value in shortest(calls).items()}
    ms = {key: value if key[0] == "embeddings" else value / COPIES for key, value in ms.items()}
    return [
        Table(
            spec=spec,
            shape=shape,
            machine=str(this_cpu()),
            version=versions([engine])[engine],
            full=(ms[dense[0]], ms[dense[1]], ms[dense[2]]),
            attention=[(h, ms["attention", h, spec.precision == "int8"]) for h in heads],
            feed_forward=[(n, ms["feed_forward", n, spec.precision == "int8"]) for n in neurons],
            embeddings=ms["embeddings", 0, spec.precision == "int8"],
        )
        for spec in specs
    ]


def points(most: int, least: int) -> list[int]:
    """Up to ``POINTS`` numbers at even distances up to ``most``, and ``least``."""
    return sorted({least, *(max(least, most * part // POINTS) for part in range(1, POINTS + 1))})


def shortest(calls: dict[tuple[str, int, bool], tuple[Call, Batch]]) -> dict[tuple[str, int, bool], float]:
    """Seconds of the processor for each, the least over the rounds."""
    for call, batch in calls.values():
        for _ in range(WARM):
            call(batch)
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for key, (call, batch) in calls.items():
            begun = time.process_time()
            call(batch)
            best[key] = min(best[key], time.process_time() - begun)
    return best


def main(words: list[str]) -> None:
    """Run the command with these words."""
    from sparse_xp.functional.structured import full_shape, gone_layers
    from sparse_xp.models.loading import locate
    from sparse_xp.settings import Model

    given = split(words, ("model", "latency", "out"))
    for name in ("model", "latency", "out"):
        if name not in given:
            raise UserError(f"{name}= is missing.")
    try:
        specs = parse_specs(given["latency"])
    except ValueError as error:
        raise UserError(str(error)) from error
    choose([specs[0].engine])
    out = claim(Path(given["out"]), is_table, "Name another file with out=.")
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(locate(Model(name="model", checkpoint=given["model"]), Path()))
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    tables = measure(specs, full_shape(model))
    write_tables(tables, out)
    layers = int(config.num_hidden_layers) + len(gone_layers(model))
    shape, dense = tables[0].shape, tables[0].dense(layers)
    say(f"{given['out']}: {given['latency']} on {tables[0].machine}, {layers} layers; dense fp32 {dense:.2f} ms")
    for table in tables:
        costs = table.costs()
        for kept in (1.0, 0.75, 0.5, 0.25):
            size = max(1, round(kept * shape.heads)), max(1, round(kept * shape.neurons))
            total = costs.total([size] * layers)
            say(
                f"  {table.spec.precision}, {size[0]} heads, {size[1]} neurons: {total:.2f} ms, {dense / total:.2f} "
                "times as fast"
            )


if __name__ == "__main__":
    command(main, __doc__)
