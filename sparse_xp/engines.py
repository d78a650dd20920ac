"""The engines that run exported files: each opens a file and gives a function that computes.

Every session computes what the file's integers say, on every CPU. By default neither engine does: without VNNI both add
two 8-bit products in 16 bits, which saturate (``saturation``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparse_xp.cpu import KINDS, this_cpu
from sparse_xp.errors import UserError, did_you_mean

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


def open_session(
    path: Path, threads: int | None = None, exact: bool = True, optimized: bool = True
) -> onnxruntime.InferenceSession:
    """A session on ``threads`` cores of the CPU, by default all of them.

    ``exact=False``: with the engine's default kernels, to measure what exactness costs. ``optimized=False``: the graph
    node by node, to find out what an optimization changes.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    if exact:
        options.add_session_config_entry(*EXACT)
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED
    )


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

    settings = {
        **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        **(dict([EXACT_OPENVINO]) if exact and openvino_saturates() else {}),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
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
