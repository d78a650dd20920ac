"""``python -m sparse_xp``: compose a configuration, make it an object, run it."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sparse_xp.choices import check_files, check_words, config_dirs, overrides_of
from sparse_xp.cli import as_written
from sparse_xp.compose import to_object
from sparse_xp.config import register, with_teacher
from sparse_xp.errors import (
    UserError,
    no_such_sweep,
    quick_help,
    short_errors,
    wants_traceback,
    welcome,
    wrong_form,
)
from sparse_xp.files import is_own, whole_directory
from sparse_xp.places import CONF
from sparse_xp.recipe.file import resolve
from sparse_xp.run_directory import CHECKPOINTS, checkpoints, release, write_error
from sparse_xp.sweep.commands import command_of, in_sweep, taught_command
from sparse_xp.sweep.teachers import dense_run

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
        config = resolve(to_object(cfg))
        from sparse_xp.console import say
        from sparse_xp.run import run
        from sparse_xp.target_cpu import start_note

        if note := start_note(config, directory):
            say(note)
        if config.teacher.source == "dense":
            dense, hydra_config, place = dense_run(config)
            teacher = resolve(to_object(dense))
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


def saved_step(directory: Path) -> str:
    """Where an interrupted run would continue."""
    saved = checkpoints(directory / CHECKPOINTS)
    if not saved:
        return "from the beginning, as nothing was saved yet (train.save_every says how often)"
    return f"at step {int(saved[-1].name.removeprefix('step-'))}"


def keep_composition(cfg: DictConfig, hydra_config: HydraConf | DictConfig, folder: Path) -> None:
    """What Hydra would have written before anything was checked, once; of several processes the first writes it."""
    if os.environ.get("RANK", "0") != "0" or is_own(folder, folder.name):
        return
    with whole_directory(folder, folder.name, "Move it away.") as draft:
        OmegaConf.save(cfg, draft / "config.yaml")
        OmegaConf.save(OmegaConf.create({"hydra": hydra_config}), draft / "hydra.yaml")
        OmegaConf.save(hydra_config.overrides.task, draft / "overrides.yaml")


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
