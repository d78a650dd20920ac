"""Search over values by Optuna, in a study on disk: a killed search resumes, and so do its runs.

``hydra/sweeper=search`` (``hydra_plugins/sparse_xp/search.py``) parses the space and calls ``run_search``. Optuna is an
extra and is imported late: without it this module can still be imported and its settings checked.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus

from sparse_xp.choices import check_choice
from sparse_xp.console import say
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files.ownership import check_replaceable
from sparse_xp.result import RESULT, Result

if TYPE_CHECKING:
    import optuna

#: how to read each objective from a result, and which way is better
OBJECTIVES: dict[str, tuple[Callable[[Result], float], Literal["maximize", "minimize"]]] = {
    "score": (lambda result: result.deployment.metrics[result.metric], "maximize"),
    "sparsity": (lambda result: result.sparsity.model, "maximize"),
    "bytes": (lambda result: float(result.deployment.bytes), "minimize"),
    "compressed_bytes": (lambda result: float(result.deployment.compressed_bytes), "minimize"),
    "seconds": (lambda result: result.training.seconds, "minimize"),
}
SAMPLERS = ("tpe", "random")
#: the attribute of a trial with its overrides as they ran: ``suggest`` rounds, and Optuna's values have all digits
RAN = "overrides"


#: launches jobs, given by their overrides, and returns what became of them; the second argument: the first job's number
Launch = Callable[[list[list[str]], int], Sequence[JobReturn]]
#: a set of values that an override names
Values = IntervalSweep | RangeSweep | ChoiceSweep


@dataclass
class SearchSettings:
    """The options of ``hydra/sweeper=search``; see ``hydra_plugins/sparse_xp/search.py``."""

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
                    f"hydra.sweeper.objectives={list(self.objectives)}: unknown objective {name}."
                    f"{did_you_mean(name, OBJECTIVES)} There are: {', '.join(OBJECTIVES)}."
                )
        if self.sampler not in SAMPLERS:
            raise UserError(f"hydra.sweeper.sampler={self.sampler}: expected one of {', '.join(SAMPLERS)}.")
        for name in ("n_trials", "n_jobs"):
            if getattr(self, name) < 1:
                raise UserError(f"hydra.sweeper.{name}={getattr(self, name)}: expected at least 1.")


@dataclass
class Space:
    """The search space: by key the values to choose from, and the overrides that all runs have."""

    searched: dict[str, Values] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)


def parse_space(overrides: list[str], loader: Any = None) -> Space:
    """Return the space that overrides span; of one key the last counts.

    ``loader``: Hydra's, for messages about unknown options. Raises UserError if nothing is to be searched.
    """
    space = Space()
    for override in OverridesParser.create(config_loader=loader).parse_overrides(overrides):
        check_choice(override)
        key, value = override.get_key_element(), override.value()
        space.searched.pop(key, None)
        space.fixed.pop(key, None)
        if isinstance(value, Values):
            space.searched[key] = value
        else:
            space.fixed[key] = f"{key}={override.get_value_element_as_str()}"
    if not space.searched:
        raise UserError(
            "hydra/sweeper=search: nothing is to be searched. Give a key an interval(a,b) or a choice(a,b)."
        )
    return space


def suggest(trial: optuna.Trial, key: str, values: Values) -> str:
    """Return an override with the value that a trial chooses for ``key``.

    A real number gets four digits: they are enough, and it becomes part of the name of a directory.
    """
    if isinstance(values, ChoiceSweep):
        options = [Override._get_value_element_as_str(option) for option in values.list]
        return f"{key}={trial.suggest_categorical(key, options)}"
    if isinstance(values, RangeSweep):
        return f"{key}={suggest_from_range(trial, key, values)}"
    log = "log" in values.tags
    if isinstance(values.start, int) and isinstance(values.end, int):
        return f"{key}={trial.suggest_int(key, values.start, values.end, log=log)}"
    assert values.start is not None
    assert values.end is not None
    return f"{key}={trial.suggest_float(key, values.start, values.end, log=log):.4g}"


def suggest_from_range(trial: optuna.Trial, key: str, values: RangeSweep) -> str:
    """Return the value that a trial chooses from ``range(start,stop,step)``; of integers ``stop`` is excluded."""
    start, stop, step = values.start, values.stop, values.step
    assert start is not None
    assert stop is not None
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        return str(trial.suggest_int(key, start, stop - 1, step=step))
    return f"{trial.suggest_float(key, start, stop, step=step):.4g}"


def run_search(settings: SearchSettings, space: Space, directory: str, launch: Launch) -> list[JobReturn]:
    """Run trials until the study in ``directory`` has ``n_trials`` complete ones, then print the best.

    Raises UserError if Optuna is missing or the study cannot be used, and the error of a run if all runs of a batch
    failed.
    """
    study = open_study(settings, Path(directory))
    requeue_interrupted(study)
    returns: list[JobReturn] = []
    while (left := settings.n_trials - count_complete(study)) > 0:
        jobs = run_batch(study, settings.objectives, space, min(left, settings.n_jobs), launch)
        returns += jobs
        if all(job.status == JobStatus.FAILED for job in jobs):
            _ = jobs[0].return_value  # raises: other values are likely to fail in the same way
    print_best(study, settings.objectives)
    return returns


def open_study(settings: SearchSettings, directory: Path) -> optuna.Study:
    """Return the study in ``directory`` or ``settings.storage``. It is created if it does not exist.

    Raises UserError if Optuna is missing, the storage cannot be used, or the study has other objectives.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("hydra/sweeper=search needs Optuna: pip install 'sparse-xp[optuna]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # set_metric_names is one
    directory.mkdir(parents=True, exist_ok=True)
    storage = settings.storage or default_storage(directory)
    with explain_storage(storage):
        study = optuna.create_study(
            study_name=directory.name,
            storage=storage,
            directions=[OBJECTIVES[name][1] for name in settings.objectives],
            load_if_exists=True,
        )
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    # The number of trials is part of the seed: a resumed search must not sample the values of its first trials again.
    study.sampler = samplers[settings.sampler](seed=settings.seed + len(study.trials))
    objectives = list(settings.objectives)
    if list(study.metric_names or objectives) != objectives:
        raise UserError(
            f"{directory} has a study of {', '.join(study.metric_names or [])}: give hydra.sweep.dir= another place."
        )
    study.set_metric_names(objectives)
    return study


def default_storage(directory: Path) -> str:
    """Return the address of ``study.db``. Raises UserError if a file of that name is not a study."""
    remedy = "Give hydra.sweep.dir= another place."
    return f"sqlite:///{check_replaceable(directory / 'study.db', is_study, remedy)}"


def is_study(path: Path) -> bool:
    """Return whether a file is a study of Optuna; into any other database Optuna would add its tables."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone())
    except sqlite3.Error:
        return False


@contextmanager
def explain_storage(storage: str) -> Iterator[None]:
    """Turn the error with which a study's file or address is refused into a message that names it."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError, AssertionError, ImportError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{storage.removeprefix('sqlite:///')} cannot be used as the study of a search ({reason}). Restore it, "
            "move it away to begin anew, or give hydra.sweep.dir= (or hydra.sweeper.storage=) another place."
        ) from error


def requeue_interrupted(study: optuna.Study) -> None:
    """Ask again for the values of trials that an earlier search was running when it was killed: their runs go on."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def count_complete(study: optuna.Study) -> int:
    """Return the number of trials that have a result."""
    from optuna.trial import TrialState

    return len(study.get_trials(states=(TrialState.COMPLETE,)))


def run_batch(
    study: optuna.Study, objectives: Sequence[str], space: Space, size: int, launch: Launch
) -> Sequence[JobReturn]:
    """Ask the study for the values of ``size`` trials, run them, and record their objectives."""
    trials = [study.ask() for _ in range(size)]
    chosen = [[suggest(trial, key, values) for key, values in space.searched.items()] for trial in trials]
    for trial, overrides in zip(trials, chosen, strict=True):
        trial.set_user_attr(RAN, overrides)
        say(f"trial {trial.number}: {' '.join(overrides)}")
    jobs = launch([[*space.fixed.values(), *overrides] for overrides in chosen], trials[0].number)
    for trial, job in zip(trials, jobs, strict=True):
        record(study, trial, job, objectives)
        finished = study.get_trials(deepcopy=False)[trial.number]
        say(f"trial {trial.number}: {describe_trial(finished, objectives)}")
    return jobs


def record(study: optuna.Study, trial: optuna.Trial, job: JobReturn, objectives: Sequence[str]) -> None:
    """Record the objectives of one finished run in the study, or that it failed."""
    from optuna.trial import TrialState

    if job.status == JobStatus.COMPLETED and job.hydra_cfg is not None:
        result = Result.read(Path(job.hydra_cfg.hydra.runtime.output_dir) / RESULT)
        study.tell(trial, [OBJECTIVES[name][0](result) for name in objectives])
    else:
        study.tell(trial, state=TrialState.FAIL)


def print_best(study: optuna.Study, objectives: Sequence[str]) -> None:
    """Print the best trials: one, or the Pareto front of several objectives."""
    for trial in study.best_trials:
        say(f"best: trial {trial.number}: {describe_trial(trial, objectives)}")


def describe_trial(trial: optuna.trial.FrozenTrial, objectives: Sequence[str]) -> str:
    """Return the objectives of a trial, or that it failed, and the values that it ran with."""
    # Studies of earlier versions have Optuna's values alone.
    overrides = trial.user_attrs.get(RAN) or [f"{key}={value}" for key, value in trial.params.items()]
    reached = "  ".join(f"{name} {value:.6g}" for name, value in zip(objectives, trial.values or (), strict=False))
    return f"{reached or 'failed'}  with {' '.join(overrides)}"
