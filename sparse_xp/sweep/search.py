"""Search over values by Optuna, in a study on disk: a search that was killed goes on, and its runs continue."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus

from sparse_xp.choices import check_choice
from sparse_xp.console import say
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files import claim
from sparse_xp.result import Result
from sparse_xp.sweep.grid import word

__all__ = ["Settings", "parse_space", "search", "word"]

#: how to read each objective from a result, and which way is better
OBJECTIVES: dict[str, tuple[Callable[[Result], float], Literal["maximize", "minimize"]]] = {
    "score": (lambda result: result.deployment.metrics[result.metric], "maximize"),
    "sparsity": (lambda result: result.sparsity.model, "maximize"),
    "bytes": (lambda result: float(result.deployment.bytes), "minimize"),
    "compressed_bytes": (lambda result: float(result.deployment.compressed_bytes), "minimize"),
    "seconds": (lambda result: result.training.seconds, "minimize"),
}
SAMPLERS = ("tpe", "random")


@dataclass
class Settings:
    """See ``hydra_plugins/sparse_xp/search.py``."""

    objectives: Sequence[str] = ("score",)
    n_trials: int = 20
    n_jobs: int = 1
    storage: str | None = None
    sampler: str = "tpe"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise UserError(
                    f"hydra.sweeper.objectives={list(self.objectives)}: there is no {name}."
                    f"{did_you_mean(name, OBJECTIVES)} There are: {', '.join(OBJECTIVES)}."
                )
        if self.sampler not in SAMPLERS:
            raise UserError(f"hydra.sweeper.sampler={self.sampler}: want one of {', '.join(SAMPLERS)}.")
        for name in ("n_trials", "n_jobs"):
            if getattr(self, name) < 1:
                raise UserError(f"hydra.sweeper.{name}={getattr(self, name)}: want at least 1.")


@dataclass
class Space:
    """What is searched, by key as the command line said it, and the words that all runs have."""

    searched: dict[str, IntervalSweep | RangeSweep | ChoiceSweep] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)


def parse_space(words: list[str], loader: Any = None) -> Space:
    """The space that words span; a later word for the same key wins. Raises UserError if nothing is to be searched."""
    space = Space()
    for override in OverridesParser.create(config_loader=loader).parse_overrides(words):
        check_choice(override)
        key, value = override.get_key_element(), override.value()
        space.searched.pop(key, None)
        space.fixed.pop(key, None)
        if isinstance(value, IntervalSweep | RangeSweep | ChoiceSweep):
            space.searched[key] = value
        else:
            space.fixed[key] = f"{key}={override.get_value_element_as_str()}"
    if not space.searched:
        raise UserError(
            "hydra/sweeper=search: nothing is to be searched. Give a key an interval(a,b) or a choice(a,b)."
        )
    return space


def suggest(trial: Any, key: str, sweep: IntervalSweep | RangeSweep | ChoiceSweep) -> str:
    """A value for ``key`` as a word; four digits of a real number are enough, and name a directory."""
    if isinstance(sweep, ChoiceSweep):
        return (
            f"{key}={trial.suggest_categorical(key, [Override._get_value_element_as_str(each) for each in sweep.list])}"
        )
    if isinstance(sweep, RangeSweep):
        assert sweep.start is not None
        assert sweep.stop is not None
        step = sweep.step
        if all(isinstance(each, int) for each in (sweep.start, sweep.stop, step)):
            return f"{key}={trial.suggest_int(key, sweep.start, sweep.stop - 1, step=step)}"
        return f"{key}={trial.suggest_float(key, sweep.start, sweep.stop, step=step):.4g}"
    log = "log" in sweep.tags
    if isinstance(sweep.start, int) and isinstance(sweep.end, int):
        return f"{key}={trial.suggest_int(key, sweep.start, sweep.end, log=log)}"
    return f"{key}={trial.suggest_float(key, sweep.start, sweep.end, log=log):.4g}"


def is_study(path: Path) -> bool:
    """Whether a file is a study of Optuna's: any other database would be given its tables."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone())
    except sqlite3.Error:
        return False


@contextmanager
def explain_storage(storage: str) -> Iterator[None]:
    """Turn what a study's file or address is refused for into a message that names it."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError, AssertionError, ImportError, RuntimeError, ValueError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{storage.removeprefix('sqlite:///')} cannot be used as the study of a search ({said}). Restore it, move "
            "it away to begin anew, or give hydra.sweep.dir= (or hydra.sweeper.storage=) another place."
        ) from error


def search(
    settings: Settings, space: Space, place: str, run: Callable[[list[list[str]], int], Sequence[JobReturn]]
) -> list[JobReturn]:
    """Run trials until there are ``n_trials`` in the study, then say which were best."""
    try:
        import optuna
    except ImportError as error:
        raise UserError("hydra/sweeper=search needs Optuna: pip install 'sparse-xp[optuna]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of names of objectives
    Path(place).mkdir(parents=True, exist_ok=True)
    own = Path(place) / "study.db"
    storage = settings.storage or f"sqlite:///{claim(own, is_study, 'Give hydra.sweep.dir= another place.')}"
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    with explain_storage(storage):
        study = optuna.create_study(
            study_name=Path(place).name,
            storage=storage,
            directions=[OBJECTIVES[name][1] for name in settings.objectives],
            load_if_exists=True,
        )
    # A search that goes on is not to draw again what it drew at first.
    study.sampler = samplers[settings.sampler](seed=settings.seed + len(study.trials))
    states = optuna.trial.TrialState
    if list(study.metric_names or settings.objectives) != list(settings.objectives):
        raise UserError(
            f"{place} has a study of {', '.join(study.metric_names or [])}: give hydra.sweep.dir= another place."
        )
    study.set_metric_names(list(settings.objectives))
    for killed in study.get_trials(states=(states.RUNNING,)):  # on their way: the same values again
        study.tell(killed.number, state=states.FAIL)
        study.enqueue_trial(killed.params)
    returns: list[JobReturn] = []
    while (left := settings.n_trials - len(study.get_trials(states=(states.COMPLETE,)))) > 0:
        trials = [study.ask() for _ in range(min(left, settings.n_jobs))]
        jobs = [[*space.fixed.values(), *(suggest(t, k, v) for k, v in space.searched.items())] for t in trials]
        done = run(jobs, trials[0].number)
        for trial, job in zip(trials, done, strict=True):
            if job.status == JobStatus.COMPLETED and job.hydra_cfg is not None:
                result = Result.read(Path(job.hydra_cfg.hydra.runtime.output_dir) / "result.json")
                study.tell(trial, [OBJECTIVES[name][0](result) for name in settings.objectives])
            else:
                study.tell(trial, state=states.FAIL)
        returns += done
        if all(job.status == JobStatus.FAILED for job in done):
            _ = done[0].return_value  # raises: what fails for all values is not worth going on with
    for best in study.best_trials:
        scores = "  ".join(f"{name} {value:.6g}" for name, value in zip(settings.objectives, best.values, strict=True))
        say(f"best: {scores}  with {' '.join(f'{key}={value}' for key, value in best.params.items())}")
    return returns
