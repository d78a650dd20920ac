"""The engines that run exported files: each opens a file and returns a function that computes it.

Sessions opened here are exact on every CPU. The engines' defaults are not: on CPUs without VNNI both add two 8-bit
products in 16 bits, which saturate (``functional.saturation``). onnxruntime and OpenVINO are imported late: each takes
a second, and OpenVINO is optional.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparse_xp.cpu import CPU_KINDS, this_cpu
from sparse_xp.deployment.onnx_file import EXPORT_AGAIN, check_self_contained, library_errors
from sparse_xp.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import onnxruntime

Batch = dict[str, np.ndarray]
Call = Callable[[Batch], Any]

#: optimizations of onnxruntime that slow every file down. Without the first it is 1.07 to 1.24 times as fast
#: (onnxruntime 1.31, a 6x384 encoder in fp32, 1x32 to 8x128 tokens, one thread of a busy AMD EPYC, 2026-11-21), without
#: the second 1.01 to 1.02 times (12x768, int8, 1x128).
DISABLED = ["SkipLayerNormFusion", "BiasGeluFusion"]

#: the setting of onnxruntime against saturation. On a CPU that saturates it converts int8 weights beyond 7 bits
#: to uint8, for which there is an exact kernel. On other CPUs, and for 7-bit weights, it changes nothing.
EXACT = ("session.x64quantprecision", "1")
#: the same for OpenVINO: products are computed in fp32, which is not slower on such a CPU
EXACT_OPENVINO = ("LP_TRANSFORMS_MODE", "NO")

#: the inputs that an encoder's graph may have
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
#: outputs for other libraries (``Task.further_outputs``). They are left out here: a large output takes time to copy.
FOR_OTHERS = ("last_hidden_state",)


def open_session(
    path: Path, threads: int | None = None, exact: bool = True, optimized: bool = True, way_out: str = EXPORT_AGAIN
) -> onnxruntime.InferenceSession:
    """Return a session on ``threads`` cores of the CPU, None for all of them.

    ``exact=False``: use the engine's default kernels, to measure what exactness costs. ``optimized=False``: compute the
    graph node by node, to find out what an optimization changes. Raises UserError, whose message ends with ``way_out``,
    for a file that is not a graph or has external data.
    """
    import onnxruntime

    check_self_contained(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised as well
    if exact:
        options.add_session_config_entry(*EXACT)
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with library_errors(path, way_out):
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED
        )


def check_graph(path: Path, session: onnxruntime.InferenceSession, outputs: tuple[str, ...]) -> None:
    """Raise UserError unless the session of ``path`` is that of an encoder with these outputs."""
    inputs = session.get_inputs()
    valid = all(node.name in INPUTS and len(node.shape) == 2 and node.type == "tensor(int64)" for node in inputs)
    if not valid or "input_ids" not in [node.name for node in inputs]:
        actual = ", ".join(f"{node.name} {node.type} {node.shape}" for node in inputs) or "nothing"
        raise UserError(f"{path} takes {actual}; expected rows and tokens of {', '.join(INPUTS)}. {EXPORT_AGAIN}")
    names = [node.name for node in session.get_outputs()]
    for name in outputs:
        if name not in names:
            raise UserError(
                f"{path} has the outputs {', '.join(names)}, and no {name} as task.json says. {EXPORT_AGAIN}"
            )


def fixed_shape(session: onnxruntime.InferenceSession) -> tuple[int | None, int | None]:
    """Return the numbers of rows and tokens that a file takes, None where any number will do."""
    rows, tokens = (size if isinstance(size, int) else None for size in session.get_inputs()[0].shape)
    return rows, tokens


def infer(session: onnxruntime.InferenceSession, batch: Batch) -> Batch:
    """Compute the outputs by name from int64 arrays [rows, tokens] by name.

    A file of a fixed shape is fed in parts of its number of rows, padded to its number of tokens. The outputs of the
    padding tokens are not cut off. Raises UserError for more tokens than the file takes.
    """
    inputs, outputs = [node.name for node in session.get_inputs()], answers_of(session)
    rows, shape = len(batch["input_ids"]), fixed_shape(session)
    step = shape[0] or rows
    parts = [
        session.run(outputs, pad_to_shape({name: batch[name][begin : begin + step] for name in inputs}, shape))
        for begin in range(0, rows, step)
    ]
    return {name: np.concatenate(part)[:rows] for name, part in zip(outputs, zip(*parts, strict=True), strict=True)}


def answers_of(session: onnxruntime.InferenceSession) -> list[str]:
    """Return the names of the outputs that a task reads: all but those that are there for other libraries."""
    names = [node.name for node in session.get_outputs()]
    return [name for name in names if name not in FOR_OTHERS] or names


def pad_to_shape(batch: Batch, shape: tuple[int | None, int | None]) -> Batch:
    """Pad int64 arrays [rows, tokens] with zeros on the right and below, up to ``shape``.

    The zeros of the attention mask exclude the new tokens. Raises UserError for more tokens than ``shape`` has.
    """
    current = next(iter(batch.values())).shape
    missing = [(size or length) - length for size, length in zip(shape, current, strict=True)]
    if missing[1] < 0:
        raise UserError(f"{current[1]} tokens: the file was exported for {shape[1]} (export.sequence).")
    return {name: np.pad(array, [(0, missing[0]), (0, missing[1])]) for name, array in batch.items()}


def onnxruntime_call(path: Path, threads: int, exact: bool = True) -> Call:
    """Open a session on ``threads`` cores of the CPU and return its call. ``exact``: as of ``open_session``."""
    session = open_session(path, threads, exact)
    names = [node.name for node in session.get_inputs()]
    outputs = answers_of(session)
    return lambda batch: session.run(outputs, {name: batch[name] for name in names})


def openvino_saturates() -> bool:
    """Return whether OpenVINO's integer kernels saturate: on this CPU, or as ``ONEDNN_MAX_CPU_ISA`` restricts it."""
    without_vnni = ("SSE41", "AVX", "AVX2", "AVX512_CORE")
    restricted = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in without_vnni
    return CPU_KINDS[this_cpu().kind].saturates or restricted


def openvino_call(path: Path, threads: int | None, exact: bool = True) -> Call:
    """Compile ``path`` for one stream on ``threads`` cores of the CPU and return its call.

    fp32 is computed as fp32, never as bf16. ``exact``: as of ``open_session``.
    """
    import openvino

    if path.suffix == ".onnx":
        check_self_contained(path)
    settings = {
        **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        **(dict([EXACT_OPENVINO]) if exact and openvino_saturates() else {}),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    with library_errors(path):
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    names = [node.get_any_name() for node in compiled.inputs]
    request = compiled.create_infer_request()
    return lambda batch: request.infer({name: batch[name] for name in names})


def openvino_forward(
    path: Path, shape: tuple[int | None, int | None], threads: int | None = None
) -> Callable[[Batch], Batch]:
    """Return a function as ``infer`` for OpenVINO: outputs by name from arrays by name, padded to ``shape``.

    ``threads``: cores of the CPU, None for all of them.
    """
    call = openvino_call(path, threads)

    def forward(batch: Batch) -> Batch:
        step = shape[0] or len(batch["input_ids"])
        parts = []
        for begin in range(0, len(batch["input_ids"]), step):
            part = {name: array[begin : begin + step] for name, array in batch.items()}
            results = call(pad_to_shape(part, shape))
            # OpenVINO overwrites its output buffers with the next call.
            parts.append({node.get_any_name(): values.copy() for node, values in results.items()})
        kept = [name for name in parts[0] if name not in FOR_OTHERS] or list(parts[0])
        return {name: np.concatenate([part[name] for part in parts]) for name in kept}

    return forward


#: by the name that is both the import name and the package's extra
ENGINES: dict[str, Callable[..., Call]] = {"onnxruntime": onnxruntime_call, "openvino": openvino_call}


def choose_engines(names: list[str] | None) -> list[str]:
    """Return the engines of these ``names``, by default all that are installed.

    Raises UserError for an unknown name, and for an engine that is not installed.
    """
    for name in names or []:
        if name not in ENGINES:
            raise UserError(f"engine={name}: expected {' or '.join(ENGINES)}.{did_you_mean(name, ENGINES)}")
        if not is_installed(name):
            raise UserError(f"engine={name} is not installed: pip install 'sparse-xp[{name}]'")
    return list(names or [name for name in ENGINES if is_installed(name)])


def is_installed(name: str) -> bool:
    """Return whether the engine can be imported."""
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def engine_versions(names: list[str]) -> dict[str, str]:
    """Return the installed version of each of these engines."""
    return {name: version(name) for name in names}
