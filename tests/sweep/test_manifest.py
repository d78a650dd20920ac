"""``sweep.json``: written, added to, read back, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparse_xp.errors import UserError
from sparse_xp.sweep.cells import Plan
from sparse_xp.sweep.manifest import read_manifest, write_manifest
from tests.sweep.cells import make_cell


def test_a_manifest_is_read_back(tmp_path):
    plan = Plan("p", tmp_path / "p", [make_cell()])
    write_manifest(plan)
    assert read_manifest(tmp_path / "p") == plan


def test_a_manifest_keeps_what_earlier_calls_made(grid, made, command):
    command(*grid(), "hydra.sweeper.jobs=[0]")
    command(*grid(), "hydra.sweeper.jobs=[1]")
    assert [cell.seed for cell in read_manifest(Path("outputs/mine")).cells] == [1, 2]


def test_a_manifest_of_another_version_is_refused(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"version": 0}))
    with pytest.raises(UserError, match=r"sweep\.json was written by another version"):
        read_manifest(tmp_path)
