"""What the parts of the job are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The places and sizes of a job.

    ``inputs``: the directory that ``job.sh prepare`` filled. ``out``: for results. ``work``: for runs, which may be
    deleted. ``done``: the results of an earlier occasion, None for none. ``slots``: runs side by side;
    ``workers``: of pytest. ``seeds``, ``batches``: as ``cells.make_cells`` takes them. ``tasks``: of the tables only
    these; ``cases``: of the speeds only those with this in their name. ``steps``: of each run of the embeddings.
    ``rehearsal``: a few steps of everything.
    """

    inputs: Path
    out: Path
    work: Path
    done: Path | None
    slots: int
    workers: int
    seeds: tuple[int, ...]
    batches: dict[str, int]
    rehearsal: bool = False
    tasks: tuple[str, ...] | None = None
    cases: str | None = None
    steps: int = 4000

    @property
    def data(self) -> Path:
        """The mirror of the data sets."""
        return self.inputs / "data"

    @property
    def minilm(self) -> Path:
        """The directory of MiniLM."""
        return self.inputs / "minilm"
