"""The engines that the benchmark knows: each opens a file and gives a function that computes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sparse_xp.errors import UserError, did_you_mean

Batch = dict[str, np.ndarray]
Call = Callable[[Batch], Any]

#: onnxruntime's own optimization that makes it slower. Without it 1.07 to 1.24 times as fast (onnxruntime 1.31, a
#: 6x384 encoder in fp32, 1x32 to 8x128 tokens, one thread of a busy AMD EPYC, 2026-11-21); the same for every file.
DISABLED = ["SkipLayerNormFusion"]


def onnxruntime_call(path: Path, threads: int) -> Call:
    """One session on ``threads`` cores of the CPU, the same options for every file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED
    )
    names = [each.name for each in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name] for name in names})


def openvino_call(path: Path, threads: int) -> Call:
    """One stream on ``threads`` cores of the CPU, fp32 computed as fp32."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    names = [each.get_any_name() for each in compiled.inputs]
    request = compiled.create_infer_request()
    return lambda batch: request.infer({name: batch[name] for name in names})


ENGINES: dict[str, Callable[[Path, int], Call]] = {"onnxruntime": onnxruntime_call, "openvino": openvino_call}


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
