"""Where the tests of this directory run: on CUDA, or with SPARSE_XP_GPU_TESTS=cpu on any machine, to try them out."""

from __future__ import annotations

import os

import pytest
import torch

#: the same bodies on a CPU: fp16 is bf16 there, and what only a GPU can show is skipped
REHEARSED = os.environ.get("SPARSE_XP_GPU_TESTS") == "cpu"
DEVICE = "cpu" if REHEARSED else "cuda"
HALF = "bf16" if REHEARSED else "fp16"
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (REHEARSED or torch.cuda.is_available()), reason="needs a CUDA device"),
]
ONLY_CUDA = pytest.mark.skipif(REHEARSED, reason="only a GPU can show it")

#: 24 steps on generated rows; without ``without_export`` a file too
WORDS = (
    "profile=embedded", "log=none", "data.embedded_train_rows=128", "data.embedded_eval_rows=32", "train.epochs=3",
    "train.batch_size=16", "log.every=1", "teacher=none", f"train.device={'cpu' if REHEARSED else 'auto'}",
)  # fmt: skip
