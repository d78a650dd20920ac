"""``python -m sparse_xp.latency``: how long a layer takes with so many heads and neurons, on an engine, as a table.

    python -m sparse_xp.latency model=DIR_OR_HUB_ID latency=onnxruntime:int8:1x128 out=FILE.json

``latency``: ENGINE:PRECISION:ROWSxTOKENS, one thread. A run with ``sparsity.target_speedup=`` measures such a table
itself, once, and keeps it under ``data.cache``; one that was measured elsewhere, where the model is to be used, is
named: ``sparsity.latency=FILE.json``.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sparse_xp.benchmark import WARM, machine
from sparse_xp.console import say
from sparse_xp.costs import Costs, Shape
from sparse_xp.engines import ENGINES, Batch, Call, choose, versions
from sparse_xp.errors import UserError
from sparse_xp.files import write_text
from sparse_xp.words import command, split

PRECISIONS = ("fp32", "int8")
ROUNDS = 15
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

    def dense(self, layers: int) -> float:
        """Milliseconds of the whole dense model in fp32."""
        attention, feed_forward, embeddings = self.full
        return layers * (attention + feed_forward) + embeddings


def parse_spec(text: str) -> Spec:
    """``onnxruntime:int8:1x128`` as what it says. Raises ValueError for another text."""
    found = _SPEC.fullmatch(text.strip())
    if not found or found["engine"] not in ENGINES or found["precision"] not in PRECISIONS:
        raise ValueError(
            f"latency={text}: want ENGINE:PRECISION:ROWSxTOKENS, such as onnxruntime:int8:1x128 (engines "
            f"{', '.join(ENGINES)}; {' or '.join(PRECISIONS)}), or FILE.json, which python -m sparse_xp.latency wrote."
        )
    rows, tokens = int(found["rows"]), int(found["tokens"])
    if rows < 1 or tokens < 2:
        raise ValueError(f"latency={text}: want at least 1 row of 2 tokens.")
    return Spec(found["engine"], found["precision"], rows, tokens)


def is_file(text: str) -> bool:
    """Whether ``latency`` names a table rather than what is to be measured."""
    return text.endswith(".json")


def interpolated(points: list[tuple[int, float]], most: int) -> list[float]:
    """A value for each of 0 to ``most``; noise must not make more look faster than less."""
    numbers, values = zip(*sorted(points), strict=True)
    return [float(x) for x in np.maximum.accumulate(np.interp(range(most + 1), numbers, values))]


def find_table(latency: str, shape: Shape, cache: Path) -> Table:
    """The table that ``latency`` names, or the one kept in ``cache``, or a new one, kept there.

    Raises UserError for a table of another shape, and for a kept one that another machine measured.
    """
    if is_file(latency):
        table = read_table(Path(latency))
        if table.shape != shape:
            raise UserError(f"{latency} is of layers of another shape: {table.shape}, and the model has {shape}.")
        if table.machine != machine():
            say(f"latency: {latency} was measured on {table.machine}; that is where the speed-up holds")
        return table
    spec = parse_spec(latency)
    choose([spec.engine])
    version = versions([spec.engine])[spec.engine]
    sizes = f"{shape.hidden}-{shape.heads}x{shape.head_size}-{shape.neurons}"
    path = cache / f"{spec.engine}-{version}-{spec.precision}-{spec.rows}x{spec.tokens}-{sizes}.json"
    if path.is_file():
        table = read_table(path)
        if table.machine != machine():
            raise UserError(
                f"{path} was measured on another machine ({table.machine}; this one is {machine()}). To prune for that "
                f"one, name the file: sparsity.latency={path}. To measure here, remove it or give data.cache=DIR."
            )
        say(f"latency: {path}, measured before")
        return table
    began = time.perf_counter()
    table = measure(spec, shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, path)
    say(f"latency: {latency} measured in {time.perf_counter() - began:.0f} s ({path})")
    return table


def write_table(table: Table, path: Path) -> None:
    """As JSON."""
    write_text(path, json.dumps(asdict(table), indent=1) + "\n")


def read_table(path: Path) -> Table:
    """Raises UserError for a file that is not there or not a table."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw |= {"spec": Spec(**raw["spec"]), "shape": Shape(**raw["shape"]), "full": tuple(raw["full"])}
        raw |= {name: [(int(n), float(ms)) for n, ms in raw[name]] for name in ("attention", "feed_forward")}
        return Table(**raw)
    except OSError as error:
        raise UserError(f"latency={path}: no such file. python -m sparse_xp.latency makes one.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no latency table ({error}). python -m sparse_xp.latency makes one.") from error


def measure(spec: Spec, shape: Shape) -> Table:
    """Time graphs of one block each, in turn.

    It is the time of the processor: on one thread that is the latency, but for what else runs on the machine.
    """
    from sparse_xp.latency_graph import attention, embeddings, feed_forward, save

    rows, tokens, hidden = spec.rows, spec.tokens, shape.hidden
    int8 = spec.precision == "int8"
    states = np.random.default_rng(0).normal(0, 1, (rows, tokens, hidden)).astype(np.float32)
    numbers = np.random.default_rng(0).integers(0, 1000, (rows, tokens))
    heads, neurons = points(shape.heads, 1), points(shape.neurons, min(16, shape.neurons))
    size = shape.head_size
    graphs = {
        "attention": lambda count, int8: attention(hidden, count, size, tokens, COPIES, int8),
        "feed_forward": lambda count, int8: feed_forward(hidden, count, COPIES, int8),
        "embeddings": lambda count, int8: embeddings(hidden, tokens, int8),
    }
    cases = [("attention", h, int8) for h in heads] + [("feed_forward", n, int8) for n in neurons]
    cases += [("embeddings", 0, int8)]
    dense = [("attention", shape.heads, False), ("feed_forward", shape.neurons, False), ("embeddings", 0, False)]
    with tempfile.TemporaryDirectory() as place:
        calls: dict[tuple[str, int, bool], tuple[Call, Batch]] = {}
        for key in dict.fromkeys([*cases, *dense]):
            kind, count, integers = key
            path = Path(place) / "block.onnx"
            save(graphs[kind](count, integers), path)
            inputs = {"numbers": numbers} if kind == "embeddings" else {"states": states}
            calls[key] = ENGINES[spec.engine](path, 1), inputs
            path.unlink()
        ms = {key: value * 1e3 for key, value in shortest(calls).items()}
    ms = {key: value if key[0] == "embeddings" else value / COPIES for key, value in ms.items()}
    return Table(
        spec=spec,
        shape=shape,
        machine=machine(),
        version=versions([spec.engine])[spec.engine],
        full=(ms[dense[0]], ms[dense[1]], ms[dense[2]]),
        attention=[(h, ms["attention", h, int8]) for h in heads],
        feed_forward=[(n, ms["feed_forward", n, int8]) for n in neurons],
        embeddings=ms["embeddings", 0, int8],
    )


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
    from sparse_xp.config import Model
    from sparse_xp.model import locate
    from sparse_xp.structured import full_shape, gone_layers

    given = split(words, ("model", "latency", "out"))
    for name in ("model", "latency", "out"):
        if name not in given:
            raise UserError(f"{name}= is missing.")
    try:
        spec = parse_spec(given["latency"])
    except ValueError as error:
        raise UserError(str(error)) from error
    choose([spec.engine])
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(locate(Model(name="model", checkpoint=given["model"]), Path()))
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    table = measure(spec, full_shape(model))
    write_table(table, Path(given["out"]))
    layers = int(config.num_hidden_layers) + len(gone_layers(model))
    costs, shape, dense = table.costs(), table.shape, table.dense(layers)
    say(f"{given['out']}: {given['latency']} on {table.machine}, {layers} layers; dense fp32 {dense:.2f} ms")
    for kept in (1.0, 0.75, 0.5, 0.25):
        size = max(1, round(kept * shape.heads)), max(1, round(kept * shape.neurons))
        total = costs.total([size] * layers)
        say(f"  {size[0]} heads, {size[1]} neurons: {total:.2f} ms, {dense / total:.2f} times as fast")


if __name__ == "__main__":
    command(main, __doc__)
