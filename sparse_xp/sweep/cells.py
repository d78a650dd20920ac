"""The records of a sweep: its cells, the published numbers beside them, and the plan that holds both."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Cell:
    """One run of a sweep; ``sweep.json`` stores these fields.

    ``words``: its overrides. ``directory``: of the run, relative to the sweep's; ``teacher``: the directory of its
    teacher. ``changed``: overrides of the command line that make it another run than the sweep's file describes.
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
class Published:
    """A published score, per cent, of the cell of that name on that task; ``published.py`` reads them.

    ``std``, ``n`` (seeds): None where they were not published. ``tolerance``: points below it that still pass.
    ``note``: what differs here from what was published. ``model``: the model it was published for, by its name here,
    None for any; runs of another model get a caveat.
    """

    task: str
    cell: str
    metric: str
    published: float
    std: float | None
    n: int | None
    tolerance: float
    source: str
    note: str
    model: str | None = None


@dataclass
class SweepPlan:
    """A sweep before it runs. ``directory``: of the sweep. ``states``: by the directories of the cells.

    ``teachers``: cells that ``hydra.sweeper.jobs`` leaves out, but that teach one of ``cells``.
    """

    name: str
    directory: Path
    cells: list[Cell]
    published: list[Published] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    teachers: list[Cell] = field(default_factory=list)
