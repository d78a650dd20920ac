"""``sweep.json``: which runs are the cells of a sweep, for its report and for runs that look for their teacher."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from sparse_xp.errors import UserError
from sparse_xp.files import write_text
from sparse_xp.sweep.cells import Cell, Plan

MANIFEST = "sweep.json"
#: raised when the manifest changes its shape
VERSION = 1


def write_manifest(plan: Plan) -> None:
    """``sweep.json``: the cells of this and of earlier calls (other seeds, say) that have left something."""
    plan.place.mkdir(parents=True, exist_ok=True)
    kept = with_earlier(plan.place, sorted([*plan.cells, *plan.teachers], key=lambda cell: cell.number))
    write_text(
        plan.place / MANIFEST,
        json.dumps(
            {
                "version": VERSION,
                "name": plan.name,
                "cells": [asdict(cell) for cell in kept],
                "published": [asdict(line) for line in plan.published],
            },
            indent=1,
        )
        + "\n",
    )


def with_earlier(place: Path, cells: list[Cell]) -> list[Cell]:
    """The cells of earlier calls that have left something, then these; one that is both stands where it stood."""
    earlier = [cell for cell in read_manifest(place).cells if (place / cell.directory).is_dir()]
    return list(({cell.directory: cell for cell in earlier} | {cell.directory: cell for cell in cells}).values())


def read_manifest(place: Path) -> Plan:
    """What ``write_manifest`` wrote, without states; no cells if there is none. Raises UserError for another shape."""
    from sparse_xp.published import Published

    path = place / MANIFEST
    if not path.exists():
        return Plan(place.name, place, [])
    raw = json.loads(path.read_text(encoding="utf-8"))
    try:
        if raw["version"] != VERSION:
            raise KeyError(f"version {raw['version']}")
        cells, published = [Cell(**cell) for cell in raw["cells"]], [Published(**line) for line in raw["published"]]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} was written by another version of sparse_xp ({error}). Move it away: the sweep writes it anew."
        ) from error
    return Plan(raw["name"], place, cells, published)
