"""``samples/``: a few inputs of the exported file and the logits that it computed from them on the exporting machine.

``export`` writes them. ``verify`` and ``Pipeline(verify=True)`` compute them again with ``check_samples``, to find out
whether another machine, or another version of an engine, gives the same logits. Only writing needs torch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparse_xp.cpu import this_cpu
from sparse_xp.data.batches import collate
from sparse_xp.deployment.bundle import LogitLimits, read_deployment, read_task
from sparse_xp.deployment.engines import Batch, pad_to_shape
from sparse_xp.deployment.onnx_file import EXPORT_AGAIN, library_errors
from sparse_xp.errors import UserError
from sparse_xp.files.reading import explain_read_errors

if TYPE_CHECKING:
    from sparse_xp.evaluation import EvalContext

#: how many samples are written, at most
SAMPLES = 4


def write_samples(
    directory: Path,
    context: EvalContext,
    inputs: list[str],
    forward: Callable[[Batch], Batch],
    shape: tuple[int | None, int | None],
) -> None:
    """Write ``inp-0000.npz``, ``out-0000.npz``, ...: evaluation features, [1, tokens], and the logits of the file.

    They hold token ids and logits under the names of the graph's inputs and outputs, and no text.

    ``inputs``: names of the graph's inputs, in order. ``forward``: computes the exported file, arrays by name.
    ``shape``: the rows and tokens that the file takes, None where any number will do.
    """
    # torch is imported late: reading samples must not load it

    directory.mkdir()
    total = len(context.eval_features)
    for number, row in enumerate(range(0, total, max(1, -(-total // SAMPLES)))):
        batch = collate(context.eval_features, [row], inputs, context.padding)
        arrays = pad_to_shape({name: value.numpy() for name, value in batch.items()}, shape)
        write_arrays(directory / f"inp-{number:04d}.npz", arrays)
        write_arrays(directory / f"out-{number:04d}.npz", forward(arrays))


def write_arrays(path: Path, arrays: Batch) -> None:
    """Write the arrays into one file, by name, uncompressed."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> Batch:
    """Return the arrays that ``write_arrays`` wrote, by name. Raises UserError for any other file."""
    with explain_read_errors(path, EXPORT_AGAIN):
        size = path.stat().st_size
    with library_errors(path), zipfile.ZipFile(path) as archive:
        # Uncompressed members take no more memory than disk: a small file cannot unpack to gigabytes.
        infos = archive.infolist()
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
        if not stored or sum(info.file_size for info in infos) > size:
            raise ValueError("it is packed, and samples are not")
    with library_errors(path), np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def check_samples(directory: Path, forward: Callable[[Batch], Batch], tolerance_factor: int = 1) -> str:
    """Compare the logits of ``forward`` with the recorded ones, and return the difference in words.

    Raises UserError past the limit of ``deployment.json``.

    ``forward``: the session to check, int64 arrays [rows, tokens] by name to outputs by name. ``tolerance_factor``: 1
    for the engine that made the samples; 2 for another one, as each of the two may differ from PyTorch by the limit.
    """
    origin, per_token = read_deployment(directory), read_task(directory)[0].per_token
    paths = find_samples(directory)
    differences, logits = [], []
    for path in paths:
        batch, recorded = read_sample(path)
        with library_errors(path):
            computed = forward(batch)
        real = batch["attention_mask"].astype(bool)  # a file of one shape has padding, whose logits do not count
        for name, values in recorded.items():
            if name not in computed or computed[name].shape != values.shape:
                raise UserError(
                    f"{recorded_path(path)} is not what the file computes: {name} {values.shape}. {EXPORT_AGAIN}"
                )
            kept = real if per_token and values.shape[:2] == real.shape else ...
            differences.append((computed[name] - values)[kept].ravel())
            logits.append(values[kept].ravel())
    passed, message = compare_logits(
        np.concatenate(differences), np.concatenate(logits), origin.limits, tolerance_factor
    )
    if not passed:
        raise UserError(
            f"{directory}: this machine, {this_cpu().short}, does not answer as {origin.cpu} did: the logits of "
            f"{len(paths)} samples differ by {message}. Made with onnxruntime {origin.onnxruntime}; try that version."
        )
    return f"logits of {len(paths)} samples within {message}"


def compare_logits(
    difference: np.ndarray, logits: np.ndarray, limits: LogitLimits, tolerance_factor: int
) -> tuple[bool, str]:
    """Return whether ``difference`` is within ``limits``, and its size and the limit in words.

    ``difference``, ``logits``: [values], of all samples. NaN is never within.
    """
    highest = float(np.abs(difference).max())
    rms = float(np.sqrt(np.square(difference).mean())) / max(float(logits.std()), 1e-9)
    if limits.max_rms_diff is not None:
        limit = limits.max_rms_diff * tolerance_factor
        return rms <= limit, f"{rms:.2g} of their spread (limit {limit:.2g})"
    limit = (limits.max_abs_diff or 0.0) * tolerance_factor
    return highest <= limit, f"{highest:.2g} (limit {limit:g})"


def find_samples(directory: Path) -> list[Path]:
    """Return the ``inp-*.npz`` of a deployment folder. Raises UserError if there are none, or one is missing."""
    paths = sorted((directory / "samples").glob("inp-*.npz"))
    if not paths:
        raise UserError(f"{directory} has no samples/: copy the whole folder, or export it again.")
    expected = {recorded_path(path) for path in paths}
    if alone := sorted(path for path in (directory / "samples").glob("out-*.npz") if path not in expected):
        raise UserError(f"{alone[0].with_name(alone[0].name.replace('out', 'inp'))} is missing. {EXPORT_AGAIN}")
    return paths


def read_sample(path: Path) -> tuple[Batch, Batch]:
    """Return the inputs, int64 [rows, tokens], and the recorded logits of the sample ``path``, by name.

    Raises UserError for files that hold anything else.
    """
    batch, recorded = read_arrays(path), read_arrays(recorded_path(path))
    shapes = {array.shape for array in batch.values()}
    ids = all(array.dtype == np.int64 and array.ndim == 2 for array in batch.values()) and len(shapes) == 1
    if not ids or not {"input_ids", "attention_mask"} <= batch.keys() or not batch["attention_mask"].any():
        raise UserError(f"{path} holds no tokens and their mask. {EXPORT_AGAIN}")
    if not recorded or not all(array.dtype.kind == "f" and array.size for array in recorded.values()):
        raise UserError(f"{recorded_path(path)} holds no logits. {EXPORT_AGAIN}")
    return batch, recorded


def recorded_path(path: Path) -> Path:
    """Return ``out-0000.npz`` for ``inp-0000.npz``."""
    return path.with_name(path.name.replace("inp", "out"))
