"""``sweep.json``: written, added to, read back, refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from sparse_xp.errors import UserError
from sparse_xp.sweep.cells import SweepPlan
from sparse_xp.sweep.manifest import read_manifest, write_manifest
from tests.sweep.cells import make_cell


def test_a_manifest_is_read_back(tmp_path):
    plan = SweepPlan("p", tmp_path / "p", [make_cell()])
    write_manifest(plan)
    assert read_manifest(tmp_path / "p") == plan


def test_a_manifest_keeps_what_earlier_calls_made(grid, made, command):
    command(*grid(), "hydra.sweeper.jobs=[0]")
    command(*grid(), "hydra.sweeper.jobs=[1]")
    assert [cell.seed for cell in read_manifest(Path("outputs/mine")).cells] == [1, 2]


def test_a_manifest_of_another_version_is_refused(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"version": 0}))
    with pytest.raises(UserError, match=r"sweep\.json is damaged \(version 0, not 1\)\. It may be of another version"):
        read_manifest(tmp_path)


DAMAGED = {
    "empty": b"",
    "cut": b'{"version": 1, "na',
    "bytes": bytes(range(256)),
    "nul": b"\0" * 100,
    "a list": b"[]",
    "a number": b"1",
    "deep": b"[" * 100_000,
    "digits": b'{"version": ' + b"9" * 5000 + b"}",
    "no cells": b'{"version": 1}',
    "cells that are none": b'{"version": 1, "name": "x", "cells": [{}], "published": []}',
    "a cell with a number for its directory": None,
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_manifest_is_one_message_that_names_it(data, tmp_path):
    cell = asdict(make_cell()) | {"directory": 5}
    whole = json.dumps({"version": 1, "name": "x", "cells": [cell], "published": []}).encode()
    (tmp_path / "sweep.json").write_bytes(whole if data is None else data)
    with pytest.raises(UserError, match=r"sweep\.json ") as caught:
        read_manifest(tmp_path)
    assert len(str(caught.value)) < 2100
