"""The files that are measured, as a command names them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A file to measure. ``label``: its row in the table; ``seed``: of the training, None for files without one."""

    label: str
    seed: int | None
    folder: Path

    @property
    def name(self) -> str:
        """The key in the results."""
        return self.label if self.seed is None else f"{self.label}@{self.seed}"

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / "model.onnx"


def parse_entry(text: str) -> Entry:
    """Read ``LABEL:DIR``, ``LABEL@SEED:DIR``, or the directory of a run, named ``LABEL,seed=SEED``.

    The folder has ``model.onnx`` and ``tokenizer.json``; of a run it is ``deployment``. Ends the command for others.
    """
    name, colon, place = text.rpartition(":")
    path = Path(place)
    folder = path / "deployment" if (path / "deployment").is_dir() else path
    if not colon:
        name = re.sub(",seed=", "@", folder.parent.name if folder.name == "deployment" else folder.name)
    label, _, seed = name.partition("@")
    if (seed and not seed.isdigit()) or not label:
        raise SystemExit(f"{text}: expected LABEL:DIR, LABEL@SEED:DIR or the directory of a run, LABEL,seed=SEED")
    for file in ("model.onnx", "tokenizer.json"):
        if not (folder / file).is_file():
            raise SystemExit(f"{text}: there is no {folder / file}")
    return Entry(label, int(seed) if seed else None, folder)


def key_parts(name: str) -> tuple[str, int | None]:
    """Return the label and the seed of a key in the results."""
    label, _, seed = name.partition("@")
    return label, int(seed) if seed else None
