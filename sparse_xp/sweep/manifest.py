"""``sweep.json``: which runs are the cells of a sweep, for its report and for runs that look for their teacher."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from sparse_xp.files.json_text import to_json
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.writing import write_text
from sparse_xp.schema import check_types
from sparse_xp.sweep.cells import Cell, Published, SweepPlan

MANIFEST = "sweep.json"
#: raised when the manifest changes its shape
VERSION = 1


def write_manifest(plan: SweepPlan) -> None:
    """Write ``sweep.json``: the cells of this call and those of earlier calls (other seeds, say) that were begun."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    cells = with_earlier(plan.directory, sorted([*plan.cells, *plan.teachers], key=lambda cell: cell.number))
    stored = {
        "version": VERSION,
        "name": plan.name,
        "cells": [asdict(cell) for cell in cells],
        "published": [asdict(number) for number in plan.published],
    }
    write_text(plan.directory / MANIFEST, to_json(stored, indent=1) + "\n")


def with_earlier(directory: Path, cells: list[Cell]) -> list[Cell]:
    """Return the cells of earlier calls that have a directory, then ``cells``; a cell that is both keeps its place."""
    earlier = [cell for cell in read_manifest(directory).cells if (directory / cell.directory).is_dir()]
    return list(({cell.directory: cell for cell in earlier} | {cell.directory: cell for cell in cells}).values())


def read_manifest(directory: Path) -> SweepPlan:
    """Return the plan that ``write_manifest`` wrote, without states. Without a file it has no cells.

    Raises UserError for a damaged file, or one of another version.
    """
    path = directory / MANIFEST
    if not os.path.lexists(path):
        return SweepPlan(directory.name, directory, [])
    remedy = "It may be of another version of sparse_xp. Move it away: the sweep writes it anew."
    with explain_read_errors(path, remedy):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != VERSION:
            raise ValueError(f"version {stored['version']}, not {VERSION}")
        cells = [Cell(**cell) for cell in stored["cells"]]
        published = [Published(**number) for number in stored["published"]]
        for record in (*cells, *published):
            check_types(record)
        return SweepPlan(str(stored["name"]), directory, cells, published)
