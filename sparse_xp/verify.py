"""``python -m sparse_xp.verify``: does this machine answer as the one that made a deployment folder?

    python -m sparse_xp.verify DEPLOYMENT [DEPLOYMENT ...]
    python -m sparse_xp.verify RUN

Checks every file against ``checksums.txt``, computes ``samples/`` and compares the logits with those recorded. One line
for each folder; the exit code is 1 if any differs. Where ``model.xml`` is there and OpenVINO is installed, that is
computed too. Needs neither torch nor transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sparse_xp.cli import command
from sparse_xp.cpu import KINDS, this_cpu
from sparse_xp.deployment.bundle import check_files, deployment_of, read_arrays, read_deployment, read_task
from sparse_xp.deployment.engines import (
    AGAIN,
    EXACT,
    Batch,
    check_graph,
    fixed_shape,
    infer,
    installed,
    library,
    open_session,
    openvino_forward,
)
from sparse_xp.errors import UserError, shortened


def check_samples(directory: Path, forward: Callable[[Batch], Batch], apart: int = 1) -> str:
    """How near ``forward`` comes to the recorded samples, in words. Raises UserError past the limit.

    ``forward``: the session to check, int64 arrays [rows, tokens] by name to outputs by name. ``apart``: how many
    limits it may be away: 1 for the engine that made the samples, 2 for another, as each may be 1 from PyTorch.
    """
    origin, per_token = read_deployment(directory), read_task(directory)[0].per_token
    paths = sorted((directory / "samples").glob("inp-*.npz"))
    if not paths:
        raise UserError(f"{directory} has no samples/: copy the whole folder, or export it again.")
    made = {recorded_of(path) for path in paths}
    if alone := sorted(path for path in (directory / "samples").glob("out-*.npz") if path not in made):
        raise UserError(f"{alone[0].with_name(alone[0].name.replace('out', 'inp'))} is missing. {AGAIN}")
    gaps, logits = [], []
    for path in paths:
        batch, recorded = read_sample(path)
        with library(path):
            computed = forward(batch)
        real = batch["attention_mask"].astype(bool)  # a file of one shape fills up with tokens that do not count
        for name, values in recorded.items():
            if name not in computed or computed[name].shape != values.shape:
                raise UserError(f"{recorded_of(path)} is not what the file computes: {name} {values.shape}. {AGAIN}")
            kept = real if per_token and values.shape[:2] == real.shape else ...
            gaps.append((computed[name] - values)[kept].ravel())
            logits.append(values[kept].ravel())
    gap, spread = np.concatenate(gaps), float(np.concatenate(logits).std())
    highest, rms = float(np.abs(gap).max()), float(np.sqrt(np.square(gap).mean())) / max(spread, 1e-9)
    limits = origin.limits
    if limits.max_rms_diff is not None:
        most = limits.max_rms_diff * apart
        same, told = rms <= most, f"{rms:.2g} of their spread (limit {most:.2g})"
    else:
        most = (limits.max_abs_diff or 0.0) * apart
        same, told = highest <= most, f"{highest:.2g} (limit {most:g})"
    if not same:  # also for nan
        raise UserError(
            f"{directory}: this machine, {this_cpu().short}, does not answer as {origin.cpu} did: the logits of "
            f"{len(paths)} samples differ by {told}. Made with onnxruntime {origin.onnxruntime}; try that version."
        )
    return f"logits of {len(paths)} samples within {told}"


def read_sample(path: Path) -> tuple[Batch, Batch]:
    """What goes in, int64 [rows, tokens], and what came out, by name. Raises UserError for files that are not so."""
    batch, recorded = read_arrays(path), read_arrays(recorded_of(path))
    shapes = {array.shape for array in batch.values()}
    whole = all(array.dtype == np.int64 and array.ndim == 2 for array in batch.values()) and len(shapes) == 1
    if not whole or not {"input_ids", "attention_mask"} <= batch.keys() or not batch["attention_mask"].any():
        raise UserError(f"{path} holds no tokens and their mask. {AGAIN}")
    if not recorded or not all(array.dtype.kind == "f" and array.size for array in recorded.values()):
        raise UserError(f"{recorded_of(path)} holds no logits. {AGAIN}")
    return batch, recorded


def recorded_of(path: Path) -> Path:
    """``out-0000.npz`` for ``inp-0000.npz``."""
    return path.with_name(path.name.replace("inp", "out"))


def verify(place: Path) -> str:
    """The line for one folder. Raises UserError if anything differs."""
    directory = deployment_of(place)
    check_files(directory)
    session = open_session(directory / "model.onnx")
    check_graph(directory / "model.onnx", session, read_task(directory)[0].outputs)
    found = [f"onnxruntime {check_samples(directory, lambda batch: infer(session, batch))}"]
    if (directory / "model.xml").is_file() and installed("openvino"):
        forward = openvino_forward(directory / "model.xml", fixed_shape(session))
        found.append(f"OpenVINO {check_samples(directory, forward, apart=2)}")
    origin = read_deployment(directory)
    own = ""
    if not origin.portable and KINDS[this_cpu().kind].saturates:
        own = f" Sessions of your own need {'='.join(EXACT)} here: the card has the line."
    return f"{directory}: {this_cpu().short} answers as {origin.cpu} did: {'; '.join(found)}.{own}"


def main(words: list[str]) -> None:
    """Run the command with these words."""
    failed = False
    for word in words:
        place = Path(word.removeprefix("model=").removeprefix("run="))
        try:
            print(shortened(verify(place)))
        except UserError as error:
            failed = True
            print(error, file=sys.stderr)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    command(main, __doc__)
