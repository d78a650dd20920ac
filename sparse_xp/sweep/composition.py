"""Compose the cells of a sweep.

Hydra takes a quarter of a second for one. Those that differ in their seed share it, and each file is read once.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from rich.progress import track

from sparse_xp.console import say

#: an override of nothing but the seed
SEED = re.compile(r"seed=\d+")


class FilesReadOnce(ConfigRepository):
    """Hydra's configuration files, each read and parsed once."""

    def __init__(self, config_search_path: ConfigSearchPath):
        super().__init__(config_search_path)
        self.known: dict[str, ConfigResult | None] = {}

    def __deepcopy__(self, _memo: object) -> FilesReadOnce:
        """Return the same object: Hydra copies it for every composition, and the search path of all cells is one."""
        return self

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self.known:
            self.known[config_path] = super().load_config(config_path)
        return copy.deepcopy(self.known[config_path])  # Hydra writes into it


class CellLoader(ConfigLoaderImpl):
    """Hydra's loader for many compositions in a row."""

    def __init__(self, config_search_path: ConfigSearchPath):
        super().__init__(config_search_path)
        self.repository = FilesReadOnce(config_search_path)


def compose_cells(runs: list[list[str]], config: DictConfig, loader: ConfigLoader) -> Iterator[DictConfig]:
    """Yield the composition of each run of a sweep, Hydra's own settings included, and show how far it is.

    Args:
        runs: The overrides of each run.
        config: The composition of the sweep.
        loader: Hydra's.
    """
    say(f"composing and checking {len(runs)} cell{'s' * (len(runs) != 1)}")
    console, shared = Console(stderr=True), dict[tuple[str, ...], DictConfig]()
    shown = track(runs, "cells", console=console, disable=not console.is_terminal, transient=True)
    for overrides in shown:
        others = tuple(word for word in overrides if not SEED.fullmatch(word))
        if len(others) == len(overrides) - 1 and others in shared:
            yield with_seed_of(shared[others], overrides)
            continue
        composed = compose_cell(overrides, config, loader)
        if can_share(composed):
            shared[others] = composed
        yield composed


def compose_cell(overrides: list[str], config: DictConfig, loader: ConfigLoader) -> DictConfig:
    """Return the composition of one run. ``config``, ``loader``: see ``compose_cells``."""
    composed = loader.load_sweep_config(config, list(overrides))
    with open_dict(composed):
        composed.hydra.job.num = 0
    return composed


def can_share(composed: DictConfig) -> bool:
    """Return whether another seed changes only the seed and the overrides: the directory may spell out all of them."""
    hydra = OmegaConf.to_container(composed.hydra, resolve=False)
    assert isinstance(hydra, dict)
    return "override_dirname" not in str(hydra["sweep"]["subdir"])


def with_seed_of(composed: DictConfig, overrides: list[str]) -> DictConfig:
    """Return the composition with the seed of ``overrides``, which are its own but for the seed."""
    word = next(word for word in overrides if SEED.fullmatch(word))
    other = copy.deepcopy(composed)
    other.seed = int(word.partition("=")[2])
    task = [word if SEED.fullmatch(each) else each for each in other.hydra.overrides.task]
    other.hydra.overrides.task = task
    return other
