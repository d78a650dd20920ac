"""From a composed Hydra configuration to a checked ``Config``.

``__main__`` and ``sweep`` compose. ``to_object`` makes the dataclasses, and their ``__post_init__`` checks the values.
``recipe.file.resolve`` then reads a recipe file. torch is not imported: composing a configuration must not load it.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass

from omegaconf import DictConfig, OmegaConf

from sparse_xp.config import Config
from sparse_xp.error_report import unknown_key_message
from sparse_xp.errors import UserError
from sparse_xp.tasks import TASKS, Task


def to_object(cfg: DictConfig) -> Config:
    """Return the checked dataclasses of a composed configuration. Raises UserError for an impossible value.

    ``recipe.file.resolve`` comes next: it reads a recipe file, and the recipe that the checkpoint carries.
    """
    if OmegaConf.get_type(cfg, "task") is Task:
        raise UserError(
            f"task {cfg.task.name} has no kind. Its file must begin with `defaults: [kind@_here_: KIND, _self_]`; "
            f"KIND is one of {', '.join(TASKS)}."
        )
    check_keys(cfg)
    if not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed={cfg.seed}: expected a whole number from 0 to {2**32 - 1}.")
    try:
        config = OmegaConf.to_object(cfg)
    except ValueError as error:
        where = invalid_node(cfg)  # a ValueError of ``__post_init__`` need not name the key
        raise UserError(str(error) if not where or where in str(error) else f"{where}: {error}") from error
    assert isinstance(config, Config)
    return config


def check_keys(node: DictConfig) -> None:
    """Raise UserError for an added key (``+key=value``) that the schema lacks, and for an empty required string.

    Hydra checks neither.
    """
    kind = OmegaConf.get_type(node)
    schema = {field.name: field for field in fields(kind)} if is_dataclass(kind) else {}
    known = list(schema) if is_dataclass(kind) else [str(key) for key in node]
    for key in map(str, node):
        if key not in known:
            raise UserError(unknown_key_message(node._get_full_key(key), key, known))
        # Annotations are strings here (``from __future__ import annotations``).
        required = key in schema and schema[key].type == "str" and schema[key].default is MISSING
        if required and not OmegaConf.is_missing(node, key) and node[key] == "":
            raise UserError(f"{node._get_full_key(key)} cannot be empty.")
        if isinstance(child := node._get_node(key), DictConfig) and not (child._is_none() or child._is_missing()):
            check_keys(child)


def invalid_node(node: DictConfig) -> str:
    """Return the full key of the innermost node whose values are refused."""
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            try:
                OmegaConf.to_object(child)
            except ValueError:
                return invalid_node(child)
    return str(node._get_full_key(None) or "")
