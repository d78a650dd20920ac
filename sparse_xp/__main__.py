"""``python -m sparse_xp``: compose a configuration, make it an object, run it."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import hydra
import yaml
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from sparse_xp.config import CONF, Config, register, with_teacher
from sparse_xp.errors import (
    UserError,
    explain,
    no_such_sweep,
    overrides_nothing,
    quick_help,
    unknown_key,
    welcome,
    wrong_form,
)
from sparse_xp.sweep.cells import Cell
from sparse_xp.sweep.commands import in_sweep, own_command, sources, taught_command
from sparse_xp.sweep.manifest import read_manifest
from sparse_xp.sweep.state import ERROR, write_error
from sparse_xp.sweep.teachers import dense_cell
from sparse_xp.tasks import TASKS, Task
from sparse_xp.words import as_written

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> float:
    """One run, and before it the run of its teacher if that is to be made. Returns its score, for a search."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    command = command_of(cfg, HydraConfig.get(), directory)
    swept = in_sweep(HydraConfig.get())
    try:
        (directory / ERROR).unlink(missing_ok=True)
        config = to_object(cfg)
        from sparse_xp.console import say
        from sparse_xp.run import run
        from sparse_xp.target_cpu import start_note

        if note := start_note(config, directory):
            say(note)
        if config.teacher.source == "dense":
            dense, hydra_config, place = dense_run(config)
            teacher = to_object(dense)
            say(
                f"teacher: the dense run of {teacher.task.name} in {place} ({teacher.train.epochs:g} epochs, seed "
                f"{teacher.seed}), made first if it is not there"
            )
            run(teacher, place, command_of(dense, hydra_config, place), show=not swept)
            keep_composition(dense, hydra_config, place / ".hydra")
            config = with_teacher(config, place)
            command = taught_command(command, place) if swept else command
        result = run(config, directory, command, show=not swept)
        keep_composition(cfg, HydraConfig.get(), directory / ".hydra")
        return result.metrics[result.metric]
    except KeyboardInterrupt:
        print(f"\ninterrupted: the same command continues {saved_step(directory)}")
        sys.exit(130)
    except Exception as error:
        if swept:  # where the others that run beside it cannot hide it
            write_error(directory, traceback.format_exc(), command)
        # Hydra has made the directory before anything was checked; a run that never began leaves none.
        elif isinstance(error, UserError) and directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
        raise


def command_of(cfg: DictConfig, hydra_config: HydraConf | DictConfig, directory: Path) -> str:
    """The command of one run alone: as typed, or, in a sweep and for a teacher, its own."""
    words, here = list(hydra_config.overrides.task), HydraConfig.get()
    if not in_sweep(here) and directory == Path(here.runtime.output_dir):
        return shlex.join(["python", "-m", "sparse_xp", *sys.argv[1:]])
    return own_command([*sources(here), *words], relative(directory))


def relative(directory: Path) -> Path:
    """The path as seen from here, if it is below."""
    return directory.relative_to(Path.cwd()) if directory.is_relative_to(Path.cwd()) else directory


def saved_step(directory: Path) -> str:
    """Where an interrupted run would continue."""
    saved = sorted((directory / "checkpoints").glob("step-*"))
    if not saved:
        return "from the beginning, as nothing was saved yet (train.save_every says how often)"
    return f"at step {int(saved[-1].name.removeprefix('step-'))}"


def to_object(cfg: DictConfig) -> Config:
    """The dataclasses of a composed configuration, checked. Raises UserError for a value that cannot be."""
    if OmegaConf.get_type(cfg, "task") is Task:
        raise UserError(
            f"task {cfg.task.name} says no kind. Its file begins with `defaults: [kind@_here_: KIND, _self_]`, where "
            f"KIND is one of {', '.join(TASKS)}."
        )
    check_keys(cfg)
    try:
        config = OmegaConf.to_object(cfg)
    except ValueError as error:
        where = culprit(cfg)
        raise UserError(str(error) if not where or where in str(error) else f"{where}: {error}") from error
    assert isinstance(config, Config)
    from sparse_xp.recipe.file import resolve

    return resolve(config)


def check_keys(node: DictConfig) -> None:
    """Raise UserError for a key that the schema does not have: ``+key=value`` is not checked by Hydra."""
    kind = OmegaConf.get_type(node)
    known = [field.name for field in fields(kind)] if is_dataclass(kind) else [str(key) for key in node]
    for key in map(str, node):
        if key not in known:
            raise UserError(unknown_key(node._get_full_key(key), key, known))
        if isinstance(child := node._get_node(key), DictConfig) and not (child._is_none() or child._is_missing()):
            check_keys(child)


def culprit(node: DictConfig) -> str:
    """The full key of the innermost node whose own values are refused."""
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            try:
                OmegaConf.to_object(child)
            except ValueError:
                return culprit(child)
    return str(node._get_full_key(None) or "")


def keep_composition(cfg: DictConfig, hydra_config: HydraConf | DictConfig, folder: Path) -> None:
    """What Hydra would have written before anything was checked."""
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml")
    OmegaConf.save(OmegaConf.create({"hydra": hydra_config}), folder / "hydra.yaml")
    OmegaConf.save(hydra_config.overrides.task, folder / "overrides.yaml")


def dense_run(config: Config, cells: Sequence[Cell] | None = None) -> tuple[DictConfig, DictConfig, Path]:
    """The composition (the run's and Hydra's) and the directory that ``recipe=dense`` has for the task of ``config``.

    It takes over what the command line says of task, data, profile and log, and of the model if it is the same one;
    the numbers of training are its own recipe's, changed by ``teacher.overrides``. In a sweep it is the sweep's own
    dense cell, if it has one (``cells``: those of the sweep, by default read from its ``sweep.json``).
    """
    hydra_config = HydraConfig.get()
    student = str(hydra_config.runtime.choices["model"])
    model = config.teacher.model or student
    groups = ["task", "data", "profile", "log", *(["model"] if model == student else [])]
    words = [word for word in hydra_config.overrides.task if word.lstrip("+~").split("=")[0].split(".")[0] in groups]
    words = [word for word in words if not word.startswith("model=")]
    words += [f"model={model}", "recipe=dense", *config.teacher.overrides]
    words += [] if config.teacher.seed is None else [f"seed={config.teacher.seed}"]
    swept = in_sweep(hydra_config)
    if swept and not config.teacher.overrides:
        known = read_manifest(Path(hydra_config.sweep.dir)).cells if cells is None else cells
        if cell := dense_cell(known, model, list(hydra_config.overrides.task), config.teacher.seed):
            words = list(cell.words)
    words += [word for word in hydra_config.overrides.hydra if word.startswith(("hydra.searchpath=", "hydra.sweep."))]
    composed = hydra.compose(hydra_config.job.config_name, overrides=words, return_hydra_config=True)
    sweep = composed.hydra.sweep
    place = Path(sweep.dir) / sweep.subdir if swept else Path(composed.hydra.run.dir)
    settings = composed.hydra
    with open_dict(composed):
        del composed["hydra"]
    return composed, settings, place


def cli() -> None:
    """The command: help for no arguments, one short message for an error that the user can mend."""
    if len(sys.argv) == 1:
        print(welcome(CONF))
        return
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(quick_help(CONF))
        return
    sys.argv[1:] = as_written(sys.argv[1:])
    if wrong := wrong_form(sys.argv[1:]) or no_such_sweep(sys.argv[1:]):
        sys.exit(wrong)
    asked = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    # Hydra would print and exit by itself; with this it raises, and every error goes through the lines below.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
    except (CompactHydraException, OmegaConfBaseException, yaml.YAMLError, AssertionError) as error:
        if asked or (isinstance(error, AssertionError) and not overrides_nothing(error)):
            raise
        sys.exit(f"\n{explain(error)}\n(HYDRA_FULL_ERROR=1 shows where it happened.)")


if __name__ == "__main__":
    cli()
