"""Which dense run teaches a cell."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sparse_xp.config import Config, result_hash, with_teacher
from sparse_xp.sweep.cells import Cell
from sparse_xp.sweep.commands import taught_command


def link_teachers(drafts: list[tuple[Cell, DictConfig, Config]], cells: Sequence[Cell]) -> None:
    """Fill in which run each cell learns from (of ``cells`` or one made for it), and what its configuration is then."""
    from sparse_xp.__main__ import dense_run

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
