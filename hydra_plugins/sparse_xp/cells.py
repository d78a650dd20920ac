"""``hydra/sweeper=cells``: a grid with names.

Hydra imports this module for every command, also for a single run. What a sweep alone needs is therefore imported in
``sweep``, which keeps every other command fast.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, ListConfig, OmegaConf


@dataclass
class CellSweeperConf:
    """The options under ``hydra.sweeper``.

    ``params``: values of all cells, a list is swept over. ``cells``: by its name the values that a cell adds to these.
    ``jobs``: the numbers of the cells to run (a dry run shows them), None for all. ``dry_run``: list all and run none.
    """

    _target_: str = "hydra_plugins.sparse_xp.cells.CellSweeper"
    max_batch_size: int | None = None
    params: dict[str, Any] | None = None
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: list[int] | None = None
    dry_run: bool = False


ConfigStore.instance().store(group="hydra/sweeper", name="cells", node=CellSweeperConf, provider="sparse_xp")


class CellSweeper(BasicSweeper):
    """Expands the grid, skips finished cells, hands the others to the launcher, and lists failed ones at the end."""

    def __init__(
        self,
        max_batch_size: int | None,
        params: DictConfig | None,
        cells: DictConfig,
        jobs: ListConfig | None,
        dry_run: bool,
    ):
        super().__init__(max_batch_size)
        self.params_of_all: dict[str, Any] = OmegaConf.to_container(params) if params is not None else {}  # type: ignore[assignment]
        self.cells: dict[str, dict[str, Any]] = OmegaConf.to_container(cells)  # type: ignore[assignment]
        self.jobs: list[int] | None = list(jobs) if jobs is not None else None
        self.dry_run = dry_run

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        from sparse_xp.sweep.dry_run import show_dry_run
        from sparse_xp.sweep.manifest import write_manifest
        from sparse_xp.sweep.plan import launch_waves, make_plan
        from sparse_xp.sweep.state import announce, clear_finished, summarize

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        plan = make_plan(self.config, loader, self.params_of_all, self.cells, arguments, self.jobs)
        if self.dry_run:
            show_dry_run(plan)
            return []
        write_manifest(plan)
        announce(plan)
        clear_finished(plan)
        returns: list[Sequence[JobReturn]] = []
        for wave in launch_waves(plan, self.max_batch_size):
            # hydra/launcher=slots starts a process for each cell, which must know its number in the sweep.
            jobs = [[*cell.words, f"hydra.sweeper.jobs=[{cell.number}]"] for cell in wave]
            returns.append(self.launcher.launch(jobs, initial_job_idx=sum(len(batch) for batch in returns)))
        summarize(plan, [result for batch in returns for result in batch])
        return returns
