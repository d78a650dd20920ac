"""The results file: JSON with ``scores`` and ``speed`` by the names of the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_results(path: Path) -> dict[str, Any]:
    """Return what the file holds, nothing if there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def add_results(path: Path, part: str, values: dict[str, Any]) -> None:
    """Write values into a part of the file; they replace those of the same names."""
    content = read_results(path)
    content[part] = {**content.get(part, {}), **values}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
