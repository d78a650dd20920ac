"""From a composed Hydra configuration to a checked ``Config``.

``main`` and ``sweep`` compose. ``to_object`` makes the dataclasses, and their ``__post_init__`` checks the values.
``recipe.file.resolve`` then reads a recipe file. torch is not imported: composing a configuration must not load it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass

from omegaconf import DictConfig, Node, OmegaConf

from sparse_xp.clock import Clock
from sparse_xp.config import Config, with_default_teacher
from sparse_xp.error_report import unknown_key_message
from sparse_xp.errors import UserError
from sparse_xp.run_names import checkpoint_name
from sparse_xp.tasks import TASKS, Task

#: the groups that others refer to: they are checked first, so that an error names their keys
SOURCES = ("train", "recipe")
#: assumed where the real number is not known yet; real epochs have fewer, so that no window is refused for nothing
STEPS_PER_EPOCH = 100_000


def to_object(cfg: DictConfig, words: Sequence[str] = ()) -> Config:
    """Return the checked dataclasses of a composed configuration. Raises UserError for an impossible value.

    ``recipe.file.resolve`` comes next: it reads a recipe file, and the recipe that the checkpoint carries.

    Args:
        cfg: What Hydra composed.
        words: The overrides as typed. A model that is chosen by ``model.checkpoint=`` alone is called after it.
    """
    if name := checkpoint_name(words):
        cfg = cfg.copy()
        cfg.model.name = name
    if OmegaConf.get_type(cfg, "task") is Task:
        raise UserError(
            f"task {cfg.task.name} has no kind. Its file must begin with `defaults: [kind@_here_: KIND, _self_]`; "
            f"KIND is one of {', '.join(TASKS)}."
        )
    check_keys(cfg)
    if not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed={cfg.seed}: expected a whole number from 0 to {2**32 - 1}.")
    try:
        for name in SOURCES:
            OmegaConf.to_object(cfg[name])
        config = OmegaConf.to_object(cfg)
    except ValueError as error:
        where = invalid_node(cfg)
        raise UserError(blame_words(where, words) + blame_source(cfg, where, str(error))) from error
    assert isinstance(config, Config)
    check_windows(cfg, config)
    return with_default_teacher(config, words)


def blame_words(where: str, words: Sequence[str]) -> str:
    """Return the words that ask for a number of ``sparsity`` which is refused and which nobody typed; else nothing.

    ``where``: the node that was refused. ``words``: the overrides as typed.
    """
    keys = {word.lstrip("+~").partition("=")[0]: word for word in words}
    if where != "sparsity" or any(key.startswith(f"{where}.") for key in keys):
        return ""
    if "recipe.sparsity" in keys:
        return f"{' '.join(keys[key] for key in ('sparsity', 'recipe.sparsity') if key in keys)}: "
    if not {"recipe", "sparsity"} <= set(keys):
        return ""
    return f"{keys['recipe']} and {keys['sparsity']} do not go together: "


def blame_source(cfg: DictConfig, where: str, message: str) -> str:
    """Return the message of a refused value with the key that a user sets.

    ``where``: the node that was refused. Its message begins with ``KEY=`` or ``CLASS.KEY=``. A key that refers to
    another one (``final_lr: ${train.learning_rate}``) is replaced by that.
    """
    match = re.match(r"([\w.]+)\.(\w+)(?==)", message)
    if match:
        key = match[0] if match[1] == where or "." in match[1] or match[1].islower() else f"{where}.{match[2]}"
        source = source_of(cfg, key)
        return f"{source}{message[match.end() :].replace(f' ({source}= sets it)', '')}"
    return message if not where or where in message else f"{where}: {message}"


def source_of(cfg: DictConfig, key: str) -> str:
    """Return the key that ``key`` refers to by ``${...}``, directly or through others; ``key`` itself if to none."""
    for _ in range(10):  # a circle of references is an error of its own
        parent, _, name = key.rpartition(".")
        holder = OmegaConf.select(cfg, parent) if parent else cfg
        node = holder._get_node(name) if isinstance(holder, DictConfig) and name in holder else None
        match = re.fullmatch(r"\$\{([\w.]+)\}", str(node._value())) if isinstance(node, Node) else None
        if match is None:
            return key
        key = match[1]
    return key


def check_windows(cfg: DictConfig, config: Config) -> None:
    """Raise UserError for a modifier whose window cannot be in a run of so many epochs, before anything is loaded.

    A time in steps is checked later, when the number of steps is known.
    """
    if config.train.steps is not None:
        return
    clock = Clock.of(config.train.epochs, STEPS_PER_EPOCH)
    for key, modifier in config.modifiers().items():
        if any("step" in str(time) for time in (modifier.start, modifier.end)):
            continue
        try:
            modifier.window(clock)
        except ValueError as error:
            sources = [(name, source_of(cfg, f"{key}.{name}")) for name in ("start", "end") if f"{name}=" in str(error)]
            told = "; ".join(f"{name} is {source}=" for name, source in sources if source != f"{key}.{name}")
            raise UserError(f"{key}: {error}{f' ({told})' if told else ''}") from error


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
    for key in dict.fromkeys([*(name for name in SOURCES if name in node), *map(str, node)]):
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            try:
                OmegaConf.to_object(child)
            except ValueError:
                return invalid_node(child)
    return str(node._get_full_key(None) or "")
