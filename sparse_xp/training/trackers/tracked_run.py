"""What a tracker is told about a run, and what this package needs of a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sparse_xp.files.writing import write_text


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker shows it.

    ``directory``: of the run. ``project``, ``group``, ``tags``, ``job``: where it stands among others; ``job`` is
    ``train``, ``teacher`` or ``sweep``. ``online``: whether W&B sends what it gets. ``config``: the whole
    configuration, with ``config_hash``, ``versions`` and ``data_fingerprint``.
    """

    directory: Path
    project: str
    group: str
    tags: list[str]
    job: str
    online: bool
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the run: that of its directory."""
        return self.directory.name


class SummaryTracker(Protocol):
    """One of Accelerate's trackers, and what this package needs besides."""

    def start(self) -> None:
        """Open the run."""

    def complete(self) -> None:
        """Finish opening it: the tracker has all that was logged before."""

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        """Log numbers of a step."""

    def has(self, name: str, step: int) -> bool:
        """Return whether the tracker has this number from an earlier part of the run, and is not to get it again."""

    def summarize(self, values: dict[str, Any], step: int) -> None:
        """Record the values of the finished run, which ended at ``step``."""


def run_id(this: TrackedRun, tracker: str) -> str | None:
    """Return the id under which a tracker has shown this run before; None for a run that is new to it."""
    path = this.directory / f"{tracker}_id"
    return path.read_text(encoding="utf-8").strip() or None if path.is_file() else None


def remember_run_id(this: TrackedRun, tracker: str, identity: str) -> None:
    """Write the id under which a tracker shows this run."""
    write_text(this.directory / f"{tracker}_id", identity)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested ``values`` as one mapping with dotted keys; what is no plain value becomes text."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


def numbers_in(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among ``values``; true and false are 1 and 0."""
    return {name: float(value) for name, value in values.items() if isinstance(value, bool | int | float)}
