"""Every test runs offline, in a directory of its own, and leaves nothing behind."""

from __future__ import annotations

import os

import pytest

# Before any test imports a library that reads them.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true", COLUMNS="200")


@pytest.fixture(autouse=True)
def _own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
