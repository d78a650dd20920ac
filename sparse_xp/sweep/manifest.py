"""``sweep.json``: which runs are the cells of a sweep, for its report and for runs that look for their teacher."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.files import reading, write_text
from sparse_xp.sweep.cells import Cell, Plan

if TYPE_CHECKING:
    from sparse_xp.sweep.published import Published

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
    from sparse_xp.sweep.published import Published

    path = place / MANIFEST
    if not os.path.lexists(path):
        return Plan(place.name, place, [])
    with reading(path, "It may be of another version of sparse_xp. Move it away: the sweep writes it anew."):
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["version"] != VERSION:
            raise ValueError(f"version {raw['version']}, not {VERSION}")
        cells, published = [Cell(**cell) for cell in raw["cells"]], [Published(**line) for line in raw["published"]]
        for cell in cells:
            check_types(cell)
        for line in published:
            check_types(line)
        return Plan(str(raw["name"]), place, cells, published)


def check_types(made: Cell | Published) -> None:
    """Raise TypeError for a value of another type than the field of that name: JSON may have anything in its place."""
    kinds: dict[str, Any] = {"int": int, "float": int | float, "str": str, "list[str]": list}
    for item in fields(made):
        kind, _, optional = str(item.type).partition(" | ")
        value = getattr(made, item.name)
        if not isinstance(value, kinds[kind]) and not (optional and value is None):
            raise TypeError(f"{item.name} is {value!r:.40}")
        if isinstance(value, list) and not all(isinstance(each, str) for each in value):
            raise TypeError(f"{item.name} is {value!r:.40}")
