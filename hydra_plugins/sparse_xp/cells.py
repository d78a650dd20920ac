"""``hydra/sweeper=cells``: a grid with names. Hydra imports this for every command, so nothing heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf


@dataclass
class CellSweeperConf:
    """``params``: values of all cells, a list is swept over. ``cells``: by name the words that a cell adds to these.

    ``jobs``: only those with these numbers (a dry run shows them). ``dry_run``: list all and run none.
    """

    _target_: str = "hydra_plugins.sparse_xp.cells.CellSweeper"
    max_batch_size: int | None = None
    params: dict[str, Any] | None = None
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: list[int] | None = None
    dry_run: bool = False


ConfigStore.instance().store(group="hydra/sweeper", name="cells", node=CellSweeperConf, provider="sparse_xp")


class CellSweeper(BasicSweeper):
    """Expands the grid, skips what is finished, hands the rest to the launcher, and says at the end what failed."""

    def __init__(self, max_batch_size: int | None, params: Any, cells: Any, jobs: Any, dry_run: bool):
        super().__init__(max_batch_size)
        self.all: dict[str, Any] = OmegaConf.to_container(params) if params is not None else {}  # type: ignore[assignment]
        self.cells: dict[str, dict[str, Any]] = OmegaConf.to_container(cells)  # type: ignore[assignment]
        self.jobs = list(jobs) if jobs is not None else None
        self.dry_run = dry_run

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        from sparse_xp.files import one_at_a_time
        from sparse_xp.run_directory import clear
        from sparse_xp.sweep.dry_run import show
        from sparse_xp.sweep.manifest import write_manifest
        from sparse_xp.sweep.plan import make_plan, waves
        from sparse_xp.sweep.state import conclude, tell

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        plan = make_plan(self.config, loader, self.all, self.cells, arguments, self.jobs)
        if self.dry_run:
            show(plan)
            return []
        write_manifest(plan)
        tell(plan)
        for cell in plan.cells:  # of a process that was killed between its result and its clean-up
            if plan.states[cell.directory] == "finished":
                with one_at_a_time(plan.place / cell.directory):
                    clear(plan.place / cell.directory)
        returns: list[Sequence[JobReturn]] = []
        for wave in waves(plan, self.max_batch_size):
            # The number goes with the words, for a launcher that starts a process of its own for it.
            jobs = [[*cell.words, f"hydra.sweeper.jobs=[{cell.number}]"] for cell in wave]
            returns.append(self.launcher.launch(jobs, initial_job_idx=sum(len(batch) for batch in returns)))
        conclude(plan, [result for batch in returns for result in batch])
        return returns
