"""Which process of a distributed run this is, before Accelerate is loaded."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Return whether this is the process of rank 0, by the environment that torchrun and accelerate set."""
    return os.environ.get("RANK", "0") == "0"
