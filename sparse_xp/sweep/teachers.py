"""Which dense run teaches a cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from sparse_xp.choices import check_words
from sparse_xp.config import HARMLESS, Config, result_hash, with_teacher
from sparse_xp.sweep.cells import Cell
from sparse_xp.sweep.commands import in_sweep, taught_command
from sparse_xp.sweep.manifest import read_manifest


def link_teachers(drafts: list[tuple[Cell, DictConfig, Config]], cells: Sequence[Cell]) -> None:
    """Fill in which run each cell learns from (of ``cells`` or one made for it), and what its configuration is then."""

    current, before = HydraConfig.instance(), HydraConfig.instance().cfg
    try:
        for cell, composed, made in drafts:
            if made.teacher.source == "dense":
                current.set_config(composed)
                _, _, teacher = dense_run(made, cells)
                cell.teacher = teacher.name
                cell.config_hash = result_hash(with_teacher(made, teacher))
                cell.command = taught_command(cell.command, teacher)
    finally:
        current.cfg = before


def dense_cell(cells: Sequence[Cell], model: str, words: list[str], seed: int | None) -> Cell | None:
    """The cell that teaches the one with ``words``: ``recipe=dense`` of ``model``, of the same task, data and profile.

    Any other words (of training, say) it may have: they are its recipe's. Of several it is the one whose words differ
    least, whatever their seeds, and of those the first; or that of ``seed``.
    """
    groups = ("task", "data", "profile")
    method = ("sparsity", "quantization", "teacher")

    def scoped(those: list[str]) -> set[str]:
        return {each for each in those if each.split("=")[0].split(".")[0] in groups}

    def is_dense(cell: Cell) -> bool:
        keys = [each.split("=")[0] for each in cell.words]
        plain = not any(key[0] in "+~" or key.split(".")[0] in method for key in keys)
        return cell.recipe == "dense" and plain and cell.model == model and seed in (None, cell.seed)

    def distance(cell: Cell) -> int:
        return sum(not each.startswith("seed=") for each in set(words) ^ set(cell.words))

    there = [cell for cell in cells if is_dense(cell) and scoped(cell.words) == scoped(words)]
    return min(there, key=distance, default=None)


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
