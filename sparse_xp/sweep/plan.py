"""The plan of a sweep: every run is composed and checked before any begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict

from sparse_xp.compose import to_object
from sparse_xp.config import Config, check_promise
from sparse_xp.config import composed as composed_of
from sparse_xp.errors import UserError
from sparse_xp.identity import differences, hash_in, list_differences
from sparse_xp.inputs import check_inputs
from sparse_xp.promises import result_name
from sparse_xp.recipe.file import resolve
from sparse_xp.run_directory import has_begun, is_run, run_state
from sparse_xp.sweep.cells import Cell, SweepPlan
from sparse_xp.sweep.commands import config_arguments, run_command_line
from sparse_xp.sweep.composition import CellLoader, compose_cells
from sparse_xp.sweep.grid import changing_overrides, expand_grid, sweep_file
from sparse_xp.sweep.manifest import with_earlier
from sparse_xp.sweep.published import check_published, find_published
from sparse_xp.sweep.teachers import link_teachers, possible_teachers


def make_plan(
    config: DictConfig,
    loader: ConfigLoader,
    params: dict[str, Any],
    cells: dict[str, dict[str, Any]],
    arguments: list[str],
    jobs: list[int] | None,
) -> SweepPlan:
    """Compose every run, refuse impossible ones, and look up what is finished and whether its data have changed.

    ``params``, ``cells``: of the sweep's file. ``arguments``: the overrides of the command line. ``jobs``: the numbers
    of the cells that are to run, None for all.
    """
    parser = OverridesParser.create(config_loader=loader)
    directory, file = Path(config.hydra.sweep.dir), sweep_file(config.hydra)
    runs = expand_grid(params, cells, arguments, parser)
    numbers = check_jobs(jobs, len(runs))
    # All cells are composed even if few are to run: which of them teaches must not depend on that.
    more = config_arguments(config.hydra)
    cell_loader = CellLoader(loader.get_search_path())
    compositions = compose_cells([overrides for _, overrides in runs], config, cell_loader)
    drafts = [
        make_cell(number, name, overrides, composed, more)
        for number, ((name, overrides), composed) in enumerate(zip(runs, compositions, strict=True))
    ]
    drafted = [cell for cell, *_ in drafts]
    for cell in drafted:
        cell.changed = changing_overrides(arguments, bool(cells)) if file else []
    check_unique(drafted)
    link_teachers(drafts, possible_teachers(drafted, with_earlier(directory, drafted)))
    published = find_published(file)
    if published and file:
        described = expand_grid(params, cells, [], parser)
        check_published(published, file.with_suffix(".csv"), described, config.hydra.runtime.choices)
    chosen = [drafted[number] for number in numbers]
    teachers = {cell.teacher for cell in chosen}
    plan = SweepPlan(
        name=file.stem if file else directory.resolve().name,
        directory=directory,
        cells=chosen,
        published=published,
        states={cell.directory: run_state(directory / cell.directory, cell.config_hash) for cell in chosen},
        teachers=[cell for cell in drafted if cell.directory in teachers and cell not in chosen],
    )
    check_mismatched(plan, {cell.directory: run_config for cell, _, run_config in drafts})
    for number in numbers:
        cell, _, run_config = drafts[number]
        check_inputs(directory / cell.directory, run_config.task, run_config.data)
    return plan


def check_jobs(jobs: list[int] | None, count: int) -> list[int]:
    """Return the numbers of the cells to run. Raises UserError for a number outside the ``count`` cells."""
    numbers = list(range(count)) if jobs is None else jobs
    if unknown := [number for number in numbers if not 0 <= number < count]:
        raise UserError(f"hydra.sweeper.jobs={jobs}: unknown job {unknown[0]}, the sweep has jobs 0 to {count - 1}.")
    return numbers


def make_cell(
    number: int, name: str, overrides: list[str], composed: DictConfig, more: list[str]
) -> tuple[Cell, DictConfig, Config]:
    """Return the cell of one run, its composition and its configuration.

    ``more``: what the cell's command needs besides its overrides. Raises UserError, naming the cell, for an impossible
    configuration.
    """
    try:
        run_config = to_config(composed, overrides)
        check_promise(run_config, overrides)
    except UserError as error:
        raise UserError(f"Cell {name or number} ({' '.join(overrides)}): {error}") from error
    choices, sweep = composed.hydra.runtime.choices, composed.hydra.sweep
    label = result_name(run_config.recipe.promise, composed_of(run_config))
    cell = Cell(
        number=number,
        name=name or label,
        words=overrides,
        directory=str(sweep.subdir),
        task=str(choices.task),
        model=str(choices.model),
        recipe=label,
        profile=run_config.profile,
        seed=run_config.seed,
        epochs=run_config.train.epochs,
        max_train_samples=run_config.task.max_train_samples,
        config_hash=hash_in(Path(sweep.dir) / str(sweep.subdir), run_config),
        command=run_command_line([*more, *overrides], Path(sweep.dir) / str(sweep.subdir)),
    )
    return cell, composed, run_config


def to_config(composed: DictConfig, words: list[str]) -> Config:
    """Return the dataclasses of a composed run. ``words``: its overrides."""
    bare = composed.copy()
    with open_dict(bare):
        del bare["hydra"]
    return resolve(to_object(bare, words))


def check_unique(cells: list[Cell]) -> None:
    """Raise UserError for two cells in one directory: they are one run."""
    by_directory: dict[str, Cell] = {}
    for cell in cells:
        if other := by_directory.get(cell.directory):
            raise UserError(
                f"Cells {other.name or other.number} and {cell.name or cell.number} are the same run "
                f"({cell.directory}). Give one of them another value, or take it out."
            )
        by_directory[cell.directory] = cell


def check_mismatched(plan: SweepPlan, configs: Mapping[str, Config]) -> None:
    """Raise UserError if runs of another configuration stand where cells of the plan would be.

    ``configs``: the configuration of each cell by its directory. The message lists how the first run differs.
    """
    if mismatched := [directory for directory, status in plan.states.items() if status == "foreign"]:
        first = plan.directory / mismatched[0]
        differing = differences(first, configs[mismatched[0]]) if is_run(first) and has_begun(first) else []
        listed = f" {first.name}: {list_differences(differing)}" if differing else ""
        raise UserError(
            f"{plan.directory} holds runs of another configuration, or files that no run wrote: "
            f"{', '.join(mismatched)}.{listed} Move them away, or give the sweep a directory of its own with "
            "hydra.sweep.dir=."
        )


def launch_waves(plan: SweepPlan, size: int | None) -> list[list[Cell]]:
    """Return the unfinished cells in groups that are launched together: teachers first, ``size`` at most."""
    teachers = {cell.teacher for cell in plan.cells}
    unfinished = [cell for cell in plan.cells if plan.states[cell.directory] != "finished"]
    waves = []
    for is_teacher in (True, False):
        group = [cell for cell in unfinished if (cell.directory in teachers) == is_teacher]
        step = size or max(1, len(group))
        waves += [group[start : start + step] for start in range(0, len(group), step)]
    return waves
