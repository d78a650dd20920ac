"""``python -m sparse_xp``: from the command line to one finished run. ``__main__`` calls ``report_and_run``.

The path of a run through the files::

    main.compose_and_run          checks argv, then calls Hydra
      main.main                   the composed configuration (conf/)
        compose.to_object         -> config.Config: typed, every value checked
        recipe/file.resolve       reads recipe.path=FILE and the recipe that the checkpoint carries
        run.load_data             reads and checks the files of rows (tasks/rows.py)
        main.run_teacher          teacher=dense: this same way once for the teacher
        target_cpu.start_note     what 8 bits gain on the CPU of the file
        run.run                   finished already? its inputs unchanged? otherwise lock the directory
          run.run_alone           claim the directory, check paths, make the Accelerator
          run.execute
            preparation.py        tasks/features, models/loading, training/teacher
            run.start             modifiers attach, optimizer, accelerate, restore a checkpoint
            training/loop.train   the steps; calls the hooks of the modifiers
            run.finish            best weights, modifiers detach
            delivery.deliver      model/, deployment/ (export and its checks), report.md, result.json

A sweep (``-m``) takes the same way once for each cell (``sweep/``).
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sparse_xp.argv_checks import find_malformed_argument, unknown_config_name
from sparse_xp.choices import check_overrides, config_directories, overrides_in
from sparse_xp.cli import quote_paths, run_command
from sparse_xp.compose import to_object
from sparse_xp.config import Config, check_promise, register, with_job, with_teacher
from sparse_xp.console import console, say
from sparse_xp.errors import UserError
from sparse_xp.files.directories import atomic_directory
from sparse_xp.files.ownership import is_own
from sparse_xp.identity import run_hash
from sparse_xp.migration.command import answer_flags
from sparse_xp.places import CONF
from sparse_xp.processes import is_first_process
from sparse_xp.recipe.file import resolve
from sparse_xp.run import check_student, load_data, run
from sparse_xp.run_directory import CHECKPOINTS, ERROR, checkpoints, find_finished, unclaim_run, write_error
from sparse_xp.sweep.commands import command_of, in_sweep, with_teacher_path
from sparse_xp.sweep.teachers import dense_run
from sparse_xp.target_cpu import start_note
from sparse_xp.tasks.rows import Splits
from sparse_xp.user_config import check_config_files

register()


class Failed(BaseException):
    """Carries the error of a single run past Hydra, which would print the whole command with it."""

    def __init__(self, error: Exception):
        super().__init__(error)
        self.error = error


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> float:
    """Make one run and return its score, which a search maximizes. A teacher that is to be trained comes first."""
    hydra_config = HydraConfig.get()
    directory = Path(hydra_config.runtime.output_dir)
    command = command_of(cfg, hydra_config, directory)
    swept = in_sweep(hydra_config)
    try:
        words = list(hydra_config.overrides.task)
        config = resolve(to_object(cfg, words))  # typed and checked; recipe files and the checkpoint's recipe read
        check_promise(config, words)
        config = with_job(config, "sweep") if swept else config
        splits = load_data(config, directory)
        if note := start_note(config, directory):
            say(note)
        if config.teacher.source == "dense":
            teacher = run_teacher(config, splits, show=not swept)
            config = with_teacher(config, teacher)
            command = with_teacher_path(command, teacher) if swept else command
        result = run(config, directory, command, show=not swept, splits=splits)
        keep_composition(cfg, hydra_config, directory / ".hydra")
        return result.metrics[result.metric]
    except KeyboardInterrupt:
        print(f"\ninterrupted: the same command continues {saved_step(directory)}")
        sys.exit(130)
    except Exception as error:
        if swept:  # the other runs of the sweep go on; this file is where the error can be found later
            # Other processes fail because the first one did, and know less.
            if is_first_process() or not os.path.lexists(directory / ERROR):
                write_error(directory, traceback.format_exc(), command)
            raise
        # Hydra has made the directory before anything was checked; a run that never began leaves none.
        if isinstance(error, UserError):
            unclaim_run(directory)
        raise Failed(error) from None


def run_teacher(config: Config, splits: Splits | None, show: bool) -> Path:
    """Make the dense run that teaches this one, or find it finished, and return its directory.

    ``splits``: the rows of this run, if they were read before.
    """
    cfg, hydra_config, directory = dense_run(config)
    words = list(hydra_config.overrides.task)
    teacher = resolve(to_object(cfg, words))
    check_same_data(config, teacher)
    check_promise(teacher, words)
    if not find_finished(directory, run_hash(directory, teacher)):
        check_student(config, splits, teacher)  # a teacher may train for hours
    say(
        f"teacher: the dense run of {teacher.task.name} in {directory} ({teacher.train.epochs:g} epochs, seed "
        f"{teacher.seed}), made first if it is not there"
    )
    run(with_job(teacher, "teacher"), directory, command_of(cfg, hydra_config, directory), show=show)
    keep_composition(cfg, hydra_config, directory / ".hydra")
    return directory


def check_same_data(config: Config, teacher: Config) -> None:
    """Raise UserError if the dense run would read other data: it knows the words of the command alone."""
    parts = [(f"data.{name}", config.data, teacher.data, name) for name in ("root", "train", "validation", "embedded")]
    for key, ours, theirs, name in [*parts, ("task", config.task, teacher.task, "name")]:
        if getattr(ours, name) != getattr(theirs, name):
            raise UserError(
                f"teacher=dense: the dense run would have {key}={getattr(theirs, name)}, this one has "
                f"{getattr(ours, name)}. Write {key}= on the command line, or give teacher=checkpoint teacher.path=DIR."
            )


def saved_step(directory: Path) -> str:
    """Say where an interrupted run will continue."""
    saved = checkpoints(directory / CHECKPOINTS)
    if not saved:
        return "from the beginning, as nothing was saved yet (train.save_every says how often)"
    return f"at step {int(saved[-1].name.removeprefix('step-'))}"


def keep_composition(cfg: DictConfig, hydra_config: HydraConf | DictConfig, folder: Path) -> None:
    """Write ``.hydra/`` once, after the run: Hydra would write it before anything was checked. Rank 0 writes it."""
    if not is_first_process() or is_own(folder, folder.name):
        return
    with atomic_directory(folder, folder.name, "Move it away.") as draft:
        OmegaConf.save(cfg, draft / "config.yaml")
        OmegaConf.save(OmegaConf.create({"hydra": hydra_config}), draft / "hydra.yaml")
        OmegaConf.save(hydra_config.overrides.task, draft / "overrides.yaml")


def compose_and_run(argv: list[str]) -> None:
    """Check the arguments and hand them to Hydra, which calls ``main``. Raises UserError."""
    # Hydra would print an error and exit by itself; with this it raises, and ``run_command`` reports every error.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    console.quiet = not is_first_process()
    sys.argv[1:] = argv = quote_paths(argv)
    if answer := answer_flags(argv):
        print(answer, file=sys.stderr)
        sys.exit(1)
    if message := find_malformed_argument(argv) or unknown_config_name(argv):
        raise UserError(message)
    folders = config_directories(argv)
    check_overrides(overrides_in(argv), folders)
    check_config_files(argv, folders)
    failure = None
    try:
        main()
    except Failed as carried:
        failure = carried.error
    if failure:  # raised here, where no other error becomes its context
        raise failure


def report_and_run() -> None:
    """Run the command line; an error ends the process with one short message."""
    run_command(compose_and_run, hint=True)
