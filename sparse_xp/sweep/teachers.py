"""Which dense run teaches a cell."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sparse_xp.config import Config, result_hash, with_teacher
from sparse_xp.sweep.cells import Cell
from sparse_xp.sweep.commands import taught_command


def link_teachers(drafts: list[tuple[Cell, DictConfig, Config]]) -> None:
    """Fill in which run each cell learns from, and what its configuration is with that."""
    from sparse_xp.__main__ import dense_run

    current, before = HydraConfig.instance(), HydraConfig.instance().cfg
    cells = [cell for cell, *_ in drafts]
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
    """The cell that teaches those of ``model`` with ``words`` of task and data: ``recipe=dense`` and nothing else.

    Of several the first, or that of ``seed``. Any other words (of training, say) it may have: they are its recipe's.
    """
    groups = ("task", "data", "profile")
    method = ("sparsity", "quantization", "teacher")

    def scoped(those: list[str]) -> set[str]:
        return {each for each in those if each.split("=")[0].split(".")[0] in groups}

    for cell in cells:
        if cell.recipe != "dense" or cell.model != model or seed not in (None, cell.seed):
            continue
        keys = [each.split("=")[0] for each in cell.words]
        if not any(key[0] in "+~" or key.split(".")[0] in method for key in keys) and scoped(cell.words) == scoped(
            words
        ):
            return cell
    return None
