"""The plan of a sweep: every run composed and checked before any begins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict

from sparse_xp.config import Config, result_hash
from sparse_xp.errors import UserError
from sparse_xp.run_directory import state
from sparse_xp.sweep.cells import Cell, Plan
from sparse_xp.sweep.commands import own_command, sources
from sparse_xp.sweep.grid import changes, expand, sweep_file
from sparse_xp.sweep.manifest import with_earlier
from sparse_xp.sweep.published import check_published, find_published
from sparse_xp.sweep.teachers import link_teachers

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def make_plan(
    config: DictConfig,
    loader: ConfigLoader,
    params: dict[str, Any],
    cells: dict[str, dict[str, Any]],
    arguments: list[str],
    jobs: list[int] | None,
) -> Plan:
    """Compose every run, refuse what cannot be, and look what there is of it already."""
    parser = OverridesParser.create(config_loader=loader)
    place, own = Path(config.hydra.sweep.dir), sweep_file(config.hydra)
    name = own.stem if own else place.resolve().name
    source = sources(config.hydra)
    listed = expand(params, cells, arguments, parser)
    numbers = range(len(listed)) if jobs is None else jobs
    if wrong := [number for number in numbers if not 0 <= number < len(listed)]:
        raise UserError(
            f"hydra.sweeper.jobs={jobs}: there is no {wrong[0]}, the sweep has jobs 0 to {len(listed) - 1}."
        )
    # All of them, also where few are asked for: which cell teaches must not depend on that.
    drafts = [make_cell(number, *listed[number], config, loader, place, source) for number in range(len(listed))]
    whole = [cell for cell, *_ in drafts]
    for cell in whole:
        cell.changed = changes(arguments, bool(cells)) if own else []
    refuse_twins(whole)
    link_teachers(drafts, with_earlier(place, whole))
    made = [whole[number] for number in numbers]
    taught = {cell.teacher for cell in made}
    published = find_published(own)
    if published and own:
        runs = expand(params, cells, [], parser)
        check_published(published, own.with_suffix(".csv"), runs, config.hydra.runtime.choices)
    plan = Plan(name, place, made, published)
    plan.teachers = [cell for cell in whole if cell.directory in taught and cell not in made]
    plan.states = {cell.directory: state(place / cell.directory, cell.config_hash) for cell in made}
    refuse_foreign(plan)
    return plan


def make_cell(
    number: int, name: str, words: list[str], config: DictConfig, loader: ConfigLoader, place: Path, source: list[str]
) -> tuple[Cell, DictConfig, Config]:
    """Compose one run. Raises UserError, naming the cell, for a configuration that cannot be."""
    composed = compose(words, config, loader)
    try:
        made = to_config(composed)
    except UserError as error:
        raise UserError(f"Cell {name or number} ({' '.join(words)}): {error}") from error
    choices, subdir = composed.hydra.runtime.choices, str(composed.hydra.sweep.subdir)
    cell = Cell(
        number=number,
        name=name or str(choices.recipe),
        words=words,
        directory=subdir,
        task=str(choices.task),
        model=str(choices.model),
        recipe=str(choices.recipe),
        profile=made.profile,
        seed=made.seed,
        epochs=made.train.epochs,
        max_train_samples=made.task.max_train_samples,
        config_hash=result_hash(made),
        command=own_command([*source, *words], place / subdir),
    )
    return cell, composed, made


def compose(words: list[str], config: DictConfig, loader: ConfigLoader) -> DictConfig:
    """A run of the sweep, with Hydra's own settings."""
    composed = loader.load_sweep_config(config, list(words))
    with open_dict(composed):
        composed.hydra.job.num = 0
    return composed


def to_config(composed: DictConfig) -> Config:
    """The dataclasses of a composed run."""
    from sparse_xp.compose import to_object
    from sparse_xp.recipe.file import resolve

    bare = composed.copy()
    with open_dict(bare):
        del bare["hydra"]
    return resolve(to_object(bare))


def refuse_twins(cells: list[Cell]) -> None:
    """Raise UserError for two cells in one directory: they are one run."""
    there: dict[str, Cell] = {}
    for cell in cells:
        if other := there.get(cell.directory):
            raise UserError(
                f"Cells {other.name or other.number} and {cell.name or cell.number} are the same run "
                f"({cell.directory}). Give one of them another value, or take it out."
            )
        there[cell.directory] = cell


def refuse_foreign(plan: Plan) -> None:
    """Raise UserError for runs of another configuration where cells of the plan would be."""
    if foreign := [each for each, found in plan.states.items() if found == "foreign"]:
        raise UserError(
            f"{plan.place} holds runs of another configuration, or files that no run wrote: {', '.join(foreign)}. "
            "Move them away, or give the sweep a directory of its own with hydra.sweep.dir=."
        )


def waves(plan: Plan, size: int | None) -> list[list[Cell]]:
    """What is to be launched together: teachers first, then the others, ``size`` at most."""
    teachers = {cell.teacher for cell in plan.cells}
    left = [cell for cell in plan.cells if plan.states[cell.directory] != "finished"]
    groups = [[cell for cell in left if (cell.directory in teachers) == first] for first in (True, False)]
    return [
        group[i : i + (size or len(group))]
        for group in groups
        if group
        for i in range(0, len(group), size or len(group))
    ]
