"""The engines that run exported files: each opens a file and gives a function that computes.

Every session computes what the file's integers say, on every CPU. By default neither engine does: without VNNI both add
two 8-bit products in 16 bits, which saturate (``saturation``).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparse_xp.cpu import KINDS, this_cpu
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files import reading

if TYPE_CHECKING:
    import onnxruntime

Batch = dict[str, np.ndarray]
Call = Callable[[Batch], Any]

#: onnxruntime's own optimizations that make it slower, for every file alike. Without the first 1.07 to 1.24 times as
#: fast (onnxruntime 1.31, a 6x384 encoder in fp32, 1x32 to 8x128 tokens, one thread of a busy AMD EPYC, 2026-11-21),
#: without the second 1.01 to 1.02 (12x768, int8, 1x128).
DISABLED = ["SkipLayerNormFusion", "BiasGeluFusion"]

#: onnxruntime's setting against saturation. On a CPU that saturates it makes unsigned weights of signed ones that go
#: beyond 7 bits, for which there is an exact kernel; on other CPUs, and for files of 7 bits, it changes nothing.
EXACT = ("session.x64quantprecision", "1")
#: the same for OpenVINO: no integer kernels, the products are computed in fp32, which is not slower on such a CPU
EXACT_OPENVINO = ("LP_TRANSFORMS_MODE", "NO")

#: what the graph of an encoder may take
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
#: what to do about a file that is not what was exported
AGAIN = "The folder is damaged or of an earlier version: python -m sparse_xp.export run=DIR writes that of a run again."


@contextmanager
def library(path: Path, way_out: str = AGAIN) -> Iterator[None]:
    """Turn whatever a library raises over the file ``path`` into a UserError that names it. For one call of it."""
    try:
        yield
    except (UserError, AssertionError, NameError):  # the last two are mistakes of ours
        raise
    # Nothing narrower will do: onnxruntime, onnx, OpenVINO and tokenizers each have classes of their own right under
    # Exception, and what panics in Rust is not even an Exception.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        told = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
        raise UserError(f"{path} cannot be used ({told}). {way_out}") from error


def open_session(
    path: Path, threads: int | None = None, exact: bool = True, optimized: bool = True, way_out: str = AGAIN
) -> onnxruntime.InferenceSession:
    """A session on ``threads`` cores of the CPU, by default all of them.

    ``exact=False``: with the engine's default kernels, to measure what exactness costs. ``optimized=False``: the graph
    node by node, to find out what an optimization changes. Raises UserError for a file that is no such graph, or that
    keeps a part of itself outside of its folder; ``way_out``: what to do about it.
    """
    import onnxruntime

    check_whole(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it logs of an error, it raises too
    if exact:
        options.add_session_config_entry(*EXACT)
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with library(path, way_out):
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED
        )


#: the parts of an ONNX file in which tensors are, by the numbers of their fields in onnx.proto
PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
#: the fields of a tensor that say in which other file its values are
ELSEWHERE = (13, 14)


def check_whole(path: Path) -> None:
    """Raise UserError for an ONNX file with values in other files, which sparse_xp does not write.

    onnxruntime 1.23 takes them from any place of the machine, an absolute one or one with ``..``.
    """
    with reading(path, AGAIN), path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            elsewhere = _elsewhere(data, 0, len(data), "model")
    if elsewhere:
        raise UserError(f"{path} has weights in other files. Write it anew with all of them inside.")


def _elsewhere(data: mmap.mmap, begin: int, end: int, part: str) -> bool:
    """Whether a tensor of this part of the file has its values elsewhere."""
    for number, first, last in message(data, begin, end):
        if part == "tensor" and number in ELSEWHERE and any(data[first:last]):
            return True
        if (inner := PARTS[part].get(number)) and _elsewhere(data, first, last, inner):
            return True
    return False


def message(data: mmap.mmap, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message of protobuf: number, where the value begins, where it ends. Raises ValueError."""
    while begin < end:
        key, begin = varint(data, begin, end)
        kind = key & 7
        if kind == 2:
            size, begin = varint(data, begin, end)
            last = begin + size
        elif kind == 0:
            last = varint(data, begin, end)[1]
        else:
            last = begin + {1: 8, 5: 4}.get(kind, end)
        if last > end:
            raise ValueError("it is cut short, or no ONNX file")
        yield (key & 0xFFFFFFFF) >> 3, begin, last
        begin = last


def varint(data: mmap.mmap, begin: int, end: int) -> tuple[int, int]:
    """A number of protobuf and where it ends. Raises ValueError."""
    value = 0
    for place in range(begin, min(begin + 10, end)):
        value |= (data[place] & 127) << 7 * (place - begin)
        if data[place] < 128:
            return value, place + 1
    raise ValueError("it is cut short, or no ONNX file")


def check_graph(path: Path, session: onnxruntime.InferenceSession, outputs: tuple[str, ...]) -> None:
    """Raise UserError unless the session of ``path`` is that of an encoder with these outputs."""
    given = session.get_inputs()
    fit = all(each.name in INPUTS and len(each.shape) == 2 and each.type == "tensor(int64)" for each in given)
    if not fit or "input_ids" not in [each.name for each in given]:
        told = ", ".join(f"{each.name} {each.type} {each.shape}" for each in given) or "nothing"
        raise UserError(f"{path} takes {told}; want rows and tokens of {', '.join(INPUTS)}. {AGAIN}")
    names = [each.name for each in session.get_outputs()]
    for name in outputs:
        if name not in names:
            raise UserError(f"{path} has the outputs {', '.join(names)}, and no {name} as task.json says. {AGAIN}")


def fixed_shape(session: onnxruntime.InferenceSession) -> tuple[int | None, int | None]:
    """How many rows and tokens a file of one shape takes; None where any number will do."""
    rows, tokens = (size if isinstance(size, int) else None for size in session.get_inputs()[0].shape)
    return rows, tokens


def infer(session: onnxruntime.InferenceSession, batch: Batch) -> Batch:
    """The outputs by name for int64 arrays [rows, tokens] by name.

    A file of one shape takes its rows in portions, filled up with tokens that the mask leaves out; what comes out of
    these tokens is not cut off. Raises UserError for more tokens than it takes.
    """
    wanted, names = [each.name for each in session.get_inputs()], [each.name for each in session.get_outputs()]
    rows, shape = len(batch["input_ids"]), fixed_shape(session)
    portion = shape[0] or rows
    found = [
        session.run(names, fill({name: batch[name][begin : begin + portion] for name in wanted}, shape))
        for begin in range(0, rows, portion)
    ]
    return {name: np.concatenate(values)[:rows] for name, values in zip(names, zip(*found, strict=True), strict=True)}


def fill(batch: Batch, shape: tuple[int | None, int | None]) -> Batch:
    """The arrays with zeros on the right and below, up to ``shape``: tokens that the attention mask leaves out."""
    have = next(iter(batch.values())).shape
    more = [(size or there) - there for size, there in zip(shape, have, strict=True)]
    if more[1] < 0:
        raise UserError(f"{have[1]} tokens: the file was exported for {shape[1]} (export.sequence).")
    return {name: np.pad(array, [(0, more[0]), (0, more[1])]) for name, array in batch.items()}


def onnxruntime_call(path: Path, threads: int, exact: bool = True) -> Call:
    """One session on ``threads`` cores of the CPU. ``exact``: as of ``open_session``."""
    session = open_session(path, threads, exact)
    names = [each.name for each in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name] for name in names})


def openvino_saturates() -> bool:
    """Whether OpenVINO's integer kernels saturate here: on this CPU, or by what ``ONEDNN_MAX_CPU_ISA`` keeps it to."""
    without_vnni = ("SSE41", "AVX", "AVX2", "AVX512_CORE")
    lowered = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in without_vnni
    return KINDS[this_cpu().kind].saturates or lowered


def openvino_call(path: Path, threads: int | None, exact: bool = True) -> Call:
    """One stream on ``threads`` cores of the CPU, fp32 computed as fp32. ``exact``: as of ``open_session``."""
    import openvino

    if path.suffix == ".onnx":
        check_whole(path)
    settings = {
        **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        **(dict([EXACT_OPENVINO]) if exact and openvino_saturates() else {}),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    with library(path):
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    names = [each.get_any_name() for each in compiled.inputs]
    request = compiled.create_infer_request()
    return lambda batch: request.infer({name: batch[name] for name in names})


def openvino_forward(path: Path, shape: tuple[int | None, int | None]) -> Callable[[Batch], Batch]:
    """What computes the outputs by name, for arrays by name that are filled up to ``shape``."""
    call = openvino_call(path, None)

    def forward(batch: Batch) -> Batch:
        portion = shape[0] or len(batch["input_ids"])
        found = [
            {key.get_any_name(): value.copy() for key, value in call(fill(part, shape)).items()}
            for begin in range(0, len(batch["input_ids"]), portion)
            for part in [{name: array[begin : begin + portion] for name, array in batch.items()}]
        ]
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    return forward


ENGINES: dict[str, Callable[..., Call]] = {"onnxruntime": onnxruntime_call, "openvino": openvino_call}


def choose(asked: list[str] | None) -> list[str]:
    """The engines ``asked`` for, by default all that are installed.

    Raises UserError for a name that there is not, or an engine that is not installed.
    """
    for name in asked or []:
        if name not in ENGINES:
            raise UserError(f"engine={name}: want {' or '.join(ENGINES)}.{did_you_mean(name, ENGINES)}")
        if not installed(name):
            raise UserError(f"engine={name} is not installed: pip install 'sparse-xp[{name}]'")
    return list(asked or [name for name in ENGINES if installed(name)])


def installed(name: str) -> bool:
    """Whether the engine can be imported."""
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def versions(names: list[str]) -> dict[str, str]:
    """What is installed of each."""
    return {name: version(name) for name in names}
