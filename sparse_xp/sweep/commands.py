"""The command that starts, resumes or skips one cell."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sparse_xp.sweep.grid import is_grid_only, sweep_file

#: the environment variable that ``hydra/launcher=slots`` sets for the process of one cell
CELL = "SPARSE_XP_CELL"


def run_command_line(overrides: list[str], directory: Path) -> str:
    """Return the command that makes, or continues, the one run in ``directory``."""
    return shlex.join(["python", "-m", "sparse_xp", *overrides, f"hydra.run.dir={directory}"])


def with_teacher_path(command: str, teacher: Path) -> str:
    """Return the command with its teacher given by the directory of the teacher's run."""
    *words, run_dir = shlex.split(command)
    others = [word for word in words if not word.startswith("teacher=")]
    return shlex.join([*others, "teacher=checkpoint", f"teacher.path={teacher}", run_dir])


def config_arguments(hydra_config: HydraConf | DictConfig) -> list[str]:
    """Return what the command of a cell needs besides its overrides: search paths and directories of configurations.

    The file of the sweep itself is among them if it sets more than a grid.
    """
    search_paths = [
        str(override) for override in hydra_config.overrides.hydra if str(override).startswith("hydra.searchpath=")
    ]
    file = sweep_file(hydra_config)
    if file and not is_grid_only(file):
        return [*search_paths, "--config-dir", str(file.parent), "--config-name", file.stem, "hydra.mode=RUN"]
    sources = hydra_config.runtime.config_sources
    directories = [str(source.path) for source in sources if source.provider == "command-line"]
    needed = [directory for directory in directories if file is None or Path(directory) != file.parent]
    return [*search_paths, *(word for directory in needed for word in ("--config-dir", directory))]


def in_sweep(hydra_config: HydraConf | DictConfig) -> bool:
    """Return whether this process makes a cell: as a job of a launcher, or started by ``hydra/launcher=slots``."""
    return hydra_config.mode == RunMode.MULTIRUN or CELL in os.environ


def command_of(cfg: DictConfig, hydra_config: HydraConf | DictConfig, directory: Path) -> str:
    """Return the command that starts this one run alone.

    For a single run it is the command as typed. For cells and teachers it is composed from their overrides.
    """
    current = HydraConfig.get()
    if not in_sweep(current) and directory == Path(current.runtime.output_dir):
        return shlex.join(["python", "-m", "sparse_xp", *sys.argv[1:]])
    overrides = [*config_arguments(current), *hydra_config.overrides.task]
    return run_command_line(overrides, relative_to_cwd(directory))


def relative_to_cwd(directory: Path) -> Path:
    """Return the path relative to the current directory if it is below."""
    return directory.relative_to(Path.cwd()) if directory.is_relative_to(Path.cwd()) else directory
