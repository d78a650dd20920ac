"""``python -m sparse_xp.verify``: check that this machine answers as the one that made a deployment folder.

    python -m sparse_xp.verify DEPLOYMENT [DEPLOYMENT ...]
    python -m sparse_xp.verify RUN

Checks every file against ``checksums.txt``, computes ``samples/`` and compares the logits with those recorded. One line
for each folder; the exit code is 1 if any differs. Where ``model.xml`` is there and OpenVINO is installed, that is
computed too. Needs neither torch nor transformers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sparse_xp.cli import run_command
from sparse_xp.cpu import CPU_KINDS, this_cpu
from sparse_xp.deployment.bundle import read_deployment, read_task
from sparse_xp.deployment.engines import (
    EXACT,
    check_graph,
    fixed_shape,
    infer,
    is_installed,
    open_session,
    openvino_forward,
)
from sparse_xp.deployment.folder import check_bundle_files, find_bundle
from sparse_xp.deployment.samples import check_samples
from sparse_xp.errors import UserError, shortened


def verify(path: Path) -> str:
    """Return a line about the deployment folder, or the run, ``path``. Raises UserError if anything differs."""
    directory = find_bundle(path)
    check_bundle_files(directory)
    session = open_session(directory / "model.onnx")
    check_graph(directory / "model.onnx", session, read_task(directory)[0].outputs)
    results = [f"onnxruntime {check_samples(directory, lambda batch: infer(session, batch))}"]
    if (directory / "model.xml").is_file() and is_installed("openvino"):
        forward = openvino_forward(directory / "model.xml", fixed_shape(session))
        results.append(f"OpenVINO {check_samples(directory, forward, tolerance_factor=2)}")
    origin = read_deployment(directory)
    advice = ""
    if not origin.portable and CPU_KINDS[this_cpu().kind].saturates:
        advice = f" Sessions of your own need {'='.join(EXACT)} here: the card has the line."
    return f"{directory}: {this_cpu().short} answers as {origin.cpu} did: {'; '.join(results)}.{advice}"


def main(argv: list[str]) -> None:
    """Run the command. Exits with 1 if any folder differs, after all were checked."""
    failed = False
    for argument in argv:
        path = Path(argument.removeprefix("model=").removeprefix("run="))
        try:
            print(shortened(verify(path)))
        except UserError as error:
            failed = True
            print(error, file=sys.stderr)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, __doc__)
