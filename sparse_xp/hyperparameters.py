"""The hyperparameters of published recipes for each task (``conf/hyperparameters.yaml``).

Recipes in ``conf/recipe`` refer to them as ``${hyperparameters:TABLE,KEY}``; ``config.register`` installs the resolver.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.places import CONF


@lru_cache
def tables() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the tables by name. A table's rows are keyed by the name of a task, the kind of a task, or ``default``."""
    loaded: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load((CONF / "hyperparameters.yaml").read_text("utf-8"))
    return loaded


def hyperparameter(table: str, key: str, task: str, kind: str) -> Any:
    """Return the value of ``key`` in ``table`` for a task: its own, else that of its kind, else the default.

    Raises UserError for an unknown table or key.
    """
    if table not in tables():
        raise UserError(
            f"${{hyperparameters:{table},{key}}}: unknown table. conf/hyperparameters.yaml has {', '.join(tables())}."
            f"{did_you_mean(table, tables())}"
        )
    rows = tables()[table]
    numbers = rows["default"] | rows.get(kind, {}) | rows.get(task, {})
    if key not in numbers:
        raise UserError(
            f"${{hyperparameters:{table},{key}}}: unknown key. The table has {', '.join(numbers)}."
            f"{did_you_mean(key, numbers)}"
        )
    return numbers[key]


def resolve_hyperparameter(table: str, key: str, *, _root_: DictConfig) -> Any:
    """Resolve ``${hyperparameters:TABLE,KEY}`` for the task of a composed configuration."""
    kind = OmegaConf.get_type(_root_, "task")
    return hyperparameter(table, key, str(_root_.task.name), kind.__name__ if kind else "")
