"""``python -m sparse_xp``: compose a configuration, make it an object, run it."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from sparse_xp.choices import check_files, check_words, config_dirs, overrides_of
from sparse_xp.cli import as_written
from sparse_xp.config import CONF, HARMLESS, Config, register, with_teacher
from sparse_xp.errors import (
    UserError,
    no_such_sweep,
    quick_help,
    short_errors,
    unknown_key,
    wants_traceback,
    welcome,
    wrong_form,
)
from sparse_xp.files import is_own, whole_directory
from sparse_xp.run_directory import CHECKPOINTS, checkpoints, release, write_error
from sparse_xp.sweep.cells import Cell
from sparse_xp.sweep.commands import in_sweep, own_command, sources, taught_command
from sparse_xp.sweep.manifest import read_manifest
from sparse_xp.sweep.teachers import dense_cell
from sparse_xp.tasks import TASKS, Task

register()


class Failed(BaseException):
    """Carries the error of a single run past Hydra, which would print all words of the command with it."""

    def __init__(self, error: Exception):
        super().__init__(error)
        self.error = error


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> float:
    """One run, and before it the run of its teacher if that is to be made. Returns its score, for a search."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    command = command_of(cfg, HydraConfig.get(), directory)
    swept = in_sweep(HydraConfig.get())
    try:
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
            raise
        # Hydra has made the directory before anything was checked; a run that never began leaves none.
        if isinstance(error, UserError):
            release(directory)
        raise Failed(error) from None


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
    saved = checkpoints(directory / CHECKPOINTS)
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
    if not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed={cfg.seed}: want a whole number from 0 to {2**32 - 1}.")
    try:
        config = OmegaConf.to_object(cfg)
    except ValueError as error:
        where = culprit(cfg)
        raise UserError(str(error) if not where or where in str(error) else f"{where}: {error}") from error
    assert isinstance(config, Config)
    from sparse_xp.recipe.file import resolve

    return resolve(config)


def check_keys(node: DictConfig) -> None:
    """Raise UserError for what Hydra does not check: a key (``+key=value``) that the schema lacks, an empty name."""
    kind = OmegaConf.get_type(node)
    schema = {field.name: field for field in fields(kind)} if is_dataclass(kind) else {}
    known = list(schema) if is_dataclass(kind) else [str(key) for key in node]
    for key in map(str, node):
        if key not in known:
            raise UserError(unknown_key(node._get_full_key(key), key, known))
        needed = key in schema and schema[key].type == "str" and schema[key].default is MISSING
        if needed and not OmegaConf.is_missing(node, key) and node[key] == "":
            raise UserError(f"{node._get_full_key(key)} cannot be empty.")
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
    """What Hydra would have written before anything was checked, once; of several processes the first writes it."""
    if os.environ.get("RANK", "0") != "0" or is_own(folder, folder.name):
        return
    with whole_directory(folder, folder.name, "Move it away.") as draft:
        OmegaConf.save(cfg, draft / "config.yaml")
        OmegaConf.save(OmegaConf.create({"hydra": hydra_config}), draft / "hydra.yaml")
        OmegaConf.save(hydra_config.overrides.task, draft / "overrides.yaml")


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
    words = [
        word
        for word in hydra_config.overrides.task
        if word.lstrip("+~").split("=")[0].split(".")[0] in groups or word.startswith(HARMLESS)
    ]
    words = [word for word in words if not word.startswith("model=")]
    check_words(config.teacher.overrides)
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
    asked = wants_traceback()
    # Hydra would print and exit by itself; with this it raises, and the lines below print every error.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with short_errors(asked, hint=True):
        sys.argv[1:] = words = as_written(sys.argv[1:])
        if wrong := wrong_form(words) or no_such_sweep(words):
            raise UserError(wrong)
        check_words(overrides_of(words), config_dirs(words))
        check_files(words, config_dirs(words))
        failed = None
        try:
            main()
        except Failed as carried:
            failed = carried.error
        if failed:  # raised here, where it gets no other context than its own
            raise failed


if __name__ == "__main__":
    cli()
