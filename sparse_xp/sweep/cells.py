"""What a sweep is made of: cells, and the plan that holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparse_xp.sweep.published import Published


@dataclass
class Cell:
    """One run of a sweep. ``directory``: where it is, relative to the sweep's. ``teacher``: that of its teacher.

    ``changed``: what the command line says other than the file of the sweep, and that can move a number.
    """

    number: int
    name: str
    words: list[str]
    directory: str
    task: str
    model: str
    recipe: str
    profile: str
    seed: int
    epochs: float
    max_train_samples: int | None
    config_hash: str
    command: str
    teacher: str | None = None
    changed: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """A sweep before it runs. ``states`` by the directory of the cell.

    ``teachers``: cells that are not to be made themselves (``hydra.sweeper.jobs``), but teach one that is.
    """

    name: str
    place: Path
    cells: list[Cell]
    published: list[Published] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    teachers: list[Cell] = field(default_factory=list)
