"""Record where a result comes from: the command, the commit of the code, and the versions of its libraries."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from sparse_xp.places import PACKAGE
from sparse_xp.result import Provenance

LIBRARIES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "hydra-core",
)


def record_provenance(config_hash: str, data_fingerprint: str, command: str | None = None) -> Provenance:
    """Return the provenance of a result of this process; ``command``: by default as it was typed."""
    return Provenance(
        command=command or shlex.join(["python", "-m", "sparse_xp", *sys.argv[1:]]),
        git=git_revision(),
        versions={name: installed for name in LIBRARIES if (installed := version_of(name))},
        config_hash=config_hash,
        data_fingerprint=data_fingerprint,
    )


def git_revision() -> str | None:
    """Return the commit of this code, with ``-dirty`` if it was changed since; None outside a checkout."""
    if not (PACKAGE.parent / ".git").exists():  # installed, perhaps inside somebody else's checkout
        return None
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None


def version_of(name: str) -> str | None:
    """Return the installed version of a package, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
