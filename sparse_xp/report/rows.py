"""Collect runs and the cells of sweeps into rows: runs that differ only in their seed make one row.

The first of three steps to a table. ``collect`` reads what runs left in their directories, ``compare.py`` puts each row
beside its dense reference and its published number, ``formats.py`` and ``page.py`` write the result.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from sparse_xp.deployment.measured_latency import Latency, read_latency
from sparse_xp.portable import portable_command
from sparse_xp.result import Result
from sparse_xp.run_directory import ERROR, run_state
from sparse_xp.run_names import NAMED, affects_result
from sparse_xp.sweep.cells import Cell
from sparse_xp.sweep.state import last_line

#: identifies the seeds of one row: the parent directory, and the name of the run directory without its seed
Key = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """The seeds of one cell on one task, in one metric. Scores are per cent, of the exported file.

    ``metric``: empty while no seed is finished. ``directories``, ``results``: one for each finished seed. ``missing``:
    for each other seed of the cell its state (``failed``, ``interrupted``, ``to do``) and its error. ``commands``: the
    command of each seed, finished or not. ``changed``: see ``Cell.changed``.
    """

    key: Key
    task: str
    cell: str
    model: str
    recipe: str
    profile: str
    metric: str
    directories: tuple[Path, ...] = ()
    results: tuple[Result, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    commands: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    latency: Latency | None = None
    #: whether a sweep lists it as its cell
    swept: bool = False

    @property
    def scores(self) -> list[float]:
        """The score of each seed that has the metric."""
        metrics = [result.deployment.metrics for result in self.results]
        return [scores[self.metric] for scores in metrics if self.metric in scores]

    @property
    def n(self) -> int:
        """The number of seeds with a score."""
        return len(self.scores)

    @property
    def mean(self) -> float | None:
        """The mean score over the seeds."""
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def std(self) -> float | None:
        """The sample standard deviation over the seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.scores) if self.n > 1 else None

    @property
    def quantization(self) -> str:
        """The ``quantization=`` option, ``none`` for floating point; empty if no seed is finished."""
        return self.results[0].quantization or "none" if self.results else ""

    def mean_of(self, value: Callable[[Result], float]) -> float | None:
        """Return the mean over the seeds of a number of their results."""
        return statistics.fmean(map(value, self.results)) if self.results else None


def collect(runs: Sequence[tuple[Path, Result]], cells: Sequence[tuple[Path, Cell]]) -> list[Row]:
    """Return the rows of a table, task by task: the cells of sweeps in their order, then runs that are no cell.

    ``runs``: finished runs by their directories. ``cells``: the cells of all sweeps, each with its directory.
    """
    results = {directory.resolve(): result for directory, result in runs}
    listed = {directory.resolve() for directory, _ in cells}
    seeds = [cell_row(directory, cell, results.get(directory.resolve())) for directory, cell in cells]
    seeds += [run_row(directory, result) for directory, result in runs if directory.resolve() not in listed]
    rows = with_distinct_names(merge_seeds(seeds))
    tasks = list(dict.fromkeys(row.task for row in rows))
    return sorted(rows, key=lambda row: tasks.index(row.task))


def cell_row(directory: Path, cell: Cell, result: Result | None) -> Row:
    """Return the row of one seed of a sweep's cell; its state stands in for the result of an unfinished one."""
    row = Row(
        key=key_of(directory, cell.seed),
        task=cell.task,
        cell=cell.name,
        model=cell.model,
        recipe=cell.recipe,
        profile=cell.profile,
        metric="",
        changed=tuple(cell.changed),
        swept=True,
    )
    if result:
        return with_result(row, directory, result)
    status = run_state(directory, cell.config_hash)
    error = last_line(directory / ERROR) if (directory / ERROR).exists() else ""
    return replace(row, missing=((status, error),), commands=(portable_command(cell.command, directory),))


def run_row(directory: Path, result: Result) -> Row:
    """Return the row of a run that no sweep lists, named after its recipe."""
    row = Row(
        key=key_of(directory, result.seed),
        task=result.task,
        cell=result.recipe,
        model=result.model,
        recipe=result.recipe,
        profile=result.profile,
        metric=result.metric,
    )
    return with_result(row, directory, result)


def with_result(row: Row, directory: Path, result: Result) -> Row:
    """Return the row with its one finished seed."""
    return replace(
        row,
        metric=result.metric,
        directories=(directory,),
        results=(result,),
        commands=(portable_command(result.provenance.command, directory),),
    )


def key_of(directory: Path, seed: int) -> Key:
    """Return what the directories of runs that differ only in their seed have in common."""
    return str(directory.parent), directory.name.removesuffix(f",seed={seed}")


def merge_seeds(seeds: Sequence[Row]) -> list[Row]:
    """Return one row for all rows of one key, named as the first of them."""
    groups: dict[Key, list[Row]] = {}
    for row in seeds:
        groups.setdefault(row.key, []).append(row)
    return [merge(group) for group in groups.values()]


def merge(seeds: Sequence[Row]) -> Row:
    """Return the seeds of one cell as one row.

    It has the first latency found, since few seeds have one.
    """
    directories = [directory for row in seeds for directory in row.directories]
    return replace(
        seeds[0],
        metric=next((row.metric for row in seeds if row.results), ""),
        directories=tuple(directories),
        results=tuple(result for row in seeds for result in row.results),
        missing=tuple(missing for row in seeds for missing in row.missing),
        commands=tuple(command for row in seeds for command in row.commands),
        latency=next((latency for directory in directories if (latency := read_latency(directory))), None),
    )


def with_distinct_names(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, those of equal names renamed after their commands, then with the parent directory too."""
    return rename_alike(rename_alike(rows, directory_name), parent_and_directory_name)


def directory_name(row: Row) -> str:
    """Return what makes a run: its recipe, its profile, and what else its command says about its result."""
    words = [word for command in row.commands[:1] for word in overrides_of(command)]
    return ", ".join([row.recipe, *([row.profile] if row.profile != "full" else []), *words])


def overrides_of(command: str) -> list[str]:
    """Return the overrides of a command that no column of a table shows, and that affect the result."""
    try:
        words = shlex.split(command)
    except ValueError:  # an unbalanced quote: no command line
        return []
    shown = [word for before, word in pairwise(["", *words]) if "=" in word and not before.startswith("--")]
    keys = {word: word.lstrip("+~").partition("=")[0] for word in shown if not word.startswith("-")}
    return [
        word
        for word, key in sorted(keys.items())
        if key not in NAMED and not key.startswith("hydra") and affects_result(key)
    ]


def parent_and_directory_name(row: Row) -> str:
    """Return the same with the name of the parent directory in front."""
    return f"{Path(row.key[0]).name}/{directory_name(row)}"


def rename_alike(rows: Sequence[Row], new_name: Callable[[Row], str]) -> list[Row]:
    """Rename rows of one task and model that share a name.

    The cell of a sweep with the shortest command, which has the fewest overrides, keeps the plain name: published
    numbers are found by it.
    """
    alike: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.task, row.model, row.cell), []).append(row)
    renamed: set[Key] = set()
    for group in alike.values():
        plain = min((row for row in group if row.swept), key=lambda row: len(row.commands[0]), default=None)
        renamed |= {row.key for row in group if len(group) > 1 and row is not plain}
    return [replace(row, cell=new_name(row)) if row.key in renamed else row for row in rows]
