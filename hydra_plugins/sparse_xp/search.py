"""``hydra/sweeper=search``: Optuna chooses the values (extra ``optuna``).

Hydra imports this module for every command: what only a search needs is imported in ``sweep``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class SearchSweeperConf:
    """The options under ``hydra.sweeper``.

    ``params``: ``interval(a,b)``, ``tag(log,interval(a,b))``, ``choice(a,b)``, ``range(a,b)``, or a fixed value.
    ``objectives``: ``score`` (the task's, of the exported file), ``compressed_bytes``, ``bytes``, ``sparsity``,
    ``seconds``. ``n_trials``: the number of trials, those of earlier calls included; ``n_jobs``: of trials at a time.
    ``storage``: the address of Optuna's study, by default a file in the sweep's directory. ``sampler``: ``tpe`` or
    ``random``.
    """

    _target_: str = "hydra_plugins.sparse_xp.search.SearchSweeper"
    params: dict[str, Any] = field(default_factory=dict)
    objectives: list[str] = field(default_factory=lambda: ["score"])
    n_trials: int = 20
    n_jobs: int = 1
    storage: str | None = None
    sampler: str = "tpe"
    seed: int = 0


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchSweeperConf, provider="sparse_xp")


class SearchSweeper(Sweeper):
    """Asks Optuna for values, hands the runs to the launcher, and reports their objectives to Optuna."""

    def __init__(self, params: DictConfig | dict[str, Any], **settings: Any):
        self.params: dict[str, Any] = OmegaConf.to_container(params) if OmegaConf.is_config(params) else params  # type: ignore[assignment]
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        from sparse_xp.sweep.grid import to_overrides
        from sparse_xp.sweep.search import SearchSettings, parse_space, run_search

        settings = SearchSettings(**self.settings)
        assert self.hydra_context is not None
        assert self.config is not None
        space = parse_space([*to_overrides(self.params), *arguments], self.hydra_context.config_loader)

        def launch(jobs: list[list[str]], first: int) -> Sequence[JobReturn]:
            self.validate_batch_is_legal(jobs)
            assert self.launcher is not None
            return self.launcher.launch(jobs, initial_job_idx=first)

        return run_search(settings, space, str(self.config.hydra.sweep.dir), launch)
