"""Every test runs offline, on one thread, in a directory of its own, and leaves nothing behind."""

from __future__ import annotations

import os

# Before any test imports a library that reads them. One thread: the models are tiny, and a test must not depend on
# how many cores a machine has.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    OMP_NUM_THREADS="1",
    COLUMNS="200",
)

import pytest


@pytest.fixture(autouse=True)
def _own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
