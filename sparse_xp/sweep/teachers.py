"""Find the dense run that teaches a cell, or a single run with ``teacher=dense``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from sparse_xp.choices import check_overrides
from sparse_xp.config import Config, with_teacher
from sparse_xp.data.readers import options_of
from sparse_xp.identity import hash_in
from sparse_xp.run_names import NAMED, affects_result, checkpoint_name
from sparse_xp.sweep.cells import Cell
from sparse_xp.sweep.commands import in_sweep, with_teacher_path
from sparse_xp.sweep.manifest import read_manifest

#: the groups that define the data: student and teacher agree in their overrides
DATA_GROUPS = ("task", "data", "profile")
#: the groups that make a cell of ``recipe=dense`` something else than a dense model
METHOD_GROUPS = ("sparsity", "quantization", "teacher")


def link_teachers(drafts: list[tuple[Cell, DictConfig, Config]], cells: Sequence[Cell]) -> None:
    """Assign a teacher to each cell that wants one, and update the cell's hash and command.

    ``drafts``: the cells with their composition and configuration. ``cells``: where a teacher may be found.
    """
    instance, before = HydraConfig.instance(), HydraConfig.instance().cfg
    directories: dict[tuple[str, ...], Path] = {}  # by the overrides of a dense run that is no cell
    try:
        for cell, composed, config in drafts:
            if config.teacher.source == "dense":
                instance.set_config(composed)  # the overrides of the cell are taken from there
                overrides, known = teacher_overrides(config, cells)
                if known:
                    teacher = Path(composed.hydra.sweep.dir) / known.directory
                else:
                    key = tuple(overrides)
                    if key not in directories:
                        directories[key] = compose_dense(overrides)[2]
                    teacher = directories[key]
                cell.teacher = teacher.name
                place = Path(composed.hydra.sweep.dir) / cell.directory
                cell.config_hash = hash_in(place, with_teacher(config, teacher))
                cell.command = with_teacher_path(cell.command, teacher)
    finally:
        instance.cfg = before


def dense_cell(cells: Sequence[Cell], model: str, overrides: list[str], seed: int | None) -> Cell | None:
    """Return the cell that teaches the one with ``overrides``, None if the sweep has no such cell.

    It is a cell of ``recipe=dense`` and of ``model``, of the same task, data and profile, and of ``seed`` unless that
    is None. Of several it is the first of those whose overrides differ least, seeds aside.
    """

    def is_dense(cell: Cell) -> bool:
        keys = [override.split("=")[0] for override in cell.words]
        plain = not any(key[0] in "+~" or key.split(".")[0] in METHOD_GROUPS for key in keys)
        return cell.recipe == "dense" and plain and cell.model == model and seed in (None, cell.seed)

    def distance(cell: Cell) -> int:
        return sum(not override.startswith("seed=") for override in set(overrides) ^ set(cell.words))

    data = data_overrides(overrides)
    candidates = [cell for cell in cells if is_dense(cell) and data_overrides(cell.words) == data]
    return min(candidates, key=distance, default=None)


def possible_teachers(cells: Sequence[Cell], earlier: Sequence[Cell]) -> list[Cell]:
    """Return the dense cells of a sweep that may teach: those of ``cells``, and of ``earlier`` calls if trained alike.

    Without this a short trial would teach every later sweep into the same directory.
    """
    dense = [numbers_of_training(cell.words) for cell in cells if cell.recipe == "dense"]
    own = {cell.directory for cell in cells}
    alike: list[set[str]] = [set(), *dense]
    known = [cell for cell in earlier if cell.recipe == "dense"]
    return [cell for cell in known if cell.directory in own or numbers_of_training(cell.words) in alike]


def numbers_of_training(overrides: list[str]) -> set[str]:
    """Return the overrides that change how a run trains, without those of task, data, profile and seed."""
    keys = {override: override.lstrip("+~").partition("=")[0] for override in overrides}
    skipped = (*DATA_GROUPS, *NAMED)
    return {each for each, key in keys.items() if affects_result(key) and key.split(".")[0] not in skipped}


def data_overrides(overrides: list[str]) -> set[str]:
    """Return the overrides of task, data and profile, without those of rows that have no labels."""
    return {each for each in with_labels_alone(overrides) if each.split("=")[0].split(".")[0] in DATA_GROUPS}


def with_labels_alone(overrides: list[str]) -> list[str]:
    """Return the overrides without ``data.unlabeled``, and without options of text that were for that file alone.

    A dense run has no teacher, from which rows without labels are learnt.
    """
    values = {key: value for key, _, value in (override.lstrip("+").partition("=") for override in overrides)}
    if "data.unlabeled" not in values:
        return overrides
    files = [values[key].strip("'\"") for key in ("data.train", "data.validation") if key in values]
    used = {f"data.{name}" for file in files for name in options_of(Path(file))}
    dropped = {"data.unlabeled", *({f"data.{name}" for name in ("separator", "quoting", "encoding")} - used)}
    return [override for override in overrides if override.lstrip("+").partition("=")[0] not in dropped]


def dense_run(config: Config) -> tuple[DictConfig, DictConfig, Path]:
    """Return the dense run that teaches ``config``: its composition, Hydra's settings and its directory.

    In a sweep it is the cell that the plan chose, if it chose one. Otherwise ``dense_overrides`` composes it.
    """
    return compose_dense(teacher_overrides(config)[0])


def teacher_overrides(config: Config, cells: Sequence[Cell] | None = None) -> tuple[list[str], Cell | None]:
    """Return the overrides of the dense run that teaches ``config``, and its cell if it is one of the sweep's.

    ``cells``: where a plan looks for a teacher. None: the plan is made, and ``sweep.json`` has it.
    """
    hydra_config = HydraConfig.get()
    model = config.teacher.model or str(hydra_config.runtime.choices["model"])
    if in_sweep(hydra_config) and not config.teacher.overrides:
        cell = (
            planned_teacher(Path(hydra_config.sweep.dir), str(hydra_config.sweep.subdir))
            if cells is None
            else dense_cell(cells, model, list(hydra_config.overrides.task), config.teacher.seed)
        )
        if cell:
            return list(cell.words), cell
    return dense_overrides(config, hydra_config, model), None


def planned_teacher(sweep: Path, directory: str) -> Cell | None:
    """Return the cell that the plan of a ``sweep`` chose to teach the one in ``directory``; None for another run."""
    cells = {cell.directory: cell for cell in read_manifest(sweep).cells}
    return cells.get(cells[directory].teacher or "") if directory in cells else None


def compose_dense(overrides: list[str]) -> tuple[DictConfig, DictConfig, Path]:
    """Return the composition of a dense run, Hydra's settings and its directory."""
    hydra_config = HydraConfig.get()
    words = overrides + [
        override
        for override in hydra_config.overrides.hydra
        if override.startswith(("hydra.searchpath=", "hydra.sweep."))
    ]
    composed = hydra.compose(hydra_config.job.config_name, overrides=words, return_hydra_config=True)
    settings = composed.hydra
    swept = in_sweep(hydra_config)
    directory = Path(settings.sweep.dir) / settings.sweep.subdir if swept else Path(settings.run.dir)
    with open_dict(composed):
        del composed["hydra"]
    return composed, settings, directory


def dense_overrides(config: Config, hydra_config: HydraConf | DictConfig, model: str) -> list[str]:
    """Return the overrides of ``recipe=dense`` for the task of ``config``.

    Those of the command line for task, data, profile, log and debug are taken over, for the model if it is the
    student's, and the task of an experiment.
    The numbers of training are those of the dense recipe, changed by ``teacher.overrides``.
    """
    student = str(hydra_config.runtime.choices["model"])
    groups = [*DATA_GROUPS, "log", "debug", *(["model"] if model == student else [])]
    overrides = [
        override
        for override in hydra_config.overrides.task
        if override.lstrip("+~").split("=")[0].split(".")[0] in groups or not affects_result(override.split("=")[0])
    ]
    overrides = [override for override in with_labels_alone(overrides) if not override.startswith("model=")]
    task = str(hydra_config.runtime.choices["task"])
    if hydra_config.runtime.choices.get("experiment") != "none" and f"task={task}" not in overrides:
        overrides.append(f"task={task}")
    check_overrides(config.teacher.overrides)
    if model != student or checkpoint_name(hydra_config.overrides.task) is None:
        overrides.append(f"model={model}")  # else the checkpoint says it, as it would in a command for the dense run
    overrides += ["recipe=dense", *config.teacher.overrides]
    if config.teacher.seed is not None:
        overrides.append(f"seed={config.teacher.seed}")
    return overrides
