"""The command of one cell: it makes, continues or finds this one run."""

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

#: set for the process of one cell
CELL = "SPARSE_XP_CELL"


def own_command(words: list[str], directory: Path) -> str:
    """The command that makes, or continues, this one run."""
    return shlex.join(["python", "-m", "sparse_xp", *words, f"hydra.run.dir={directory}"])


def taught_command(command: str, teacher: Path) -> str:
    """The command with its teacher by its place."""
    *words, last = shlex.split(command)
    kept = [each for each in words if not each.startswith("teacher=")]
    return shlex.join([*kept, "teacher=checkpoint", f"teacher.path={teacher}", last])


def sources(hydra_config: HydraConf | DictConfig) -> list[str]:
    """What the command of a cell needs besides its words: a search path, a sweep that is no mere grid."""
    found = [str(each) for each in hydra_config.overrides.hydra if str(each).startswith("hydra.searchpath=")]
    own = sweep_file(hydra_config)
    if own and not is_grid_only(own):
        return [*found, "--config-dir", str(own.parent), "--config-name", own.stem, "hydra.mode=RUN"]
    folders = [str(each.path) for each in hydra_config.runtime.config_sources if each.provider == "command-line"]
    grid = [own.parent] if own else []
    return [*found, *(word for folder in folders if Path(folder) not in grid for word in ("--config-dir", folder))]


def in_sweep(hydra_config: HydraConf | DictConfig) -> bool:
    """Whether this process makes a cell: as a job of a launcher, or started for it by ``hydra/launcher=slots``."""
    return hydra_config.mode == RunMode.MULTIRUN or CELL in os.environ


def command_of(cfg: DictConfig, hydra_config: HydraConf | DictConfig, directory: Path) -> str:
    """The command of one run alone: as typed, or, in a sweep and for a teacher, its own."""
    words, here = list(hydra_config.overrides.task), HydraConfig.get()
    if not in_sweep(here) and directory == Path(here.runtime.output_dir):
        return shlex.join(["python", "-m", "sparse_xp", *sys.argv[1:]])
    return own_command([*sources(here), *words], relative(directory))


def relative(directory: Path) -> Path:
    """The path as seen from here, if it is below."""
    return directory.relative_to(Path.cwd()) if directory.is_relative_to(Path.cwd()) else directory
