"""The grid of a sweep: its file, and the words of every run that it stands for."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from sparse_xp.choices import check_choice
from sparse_xp.errors import UserError
from sparse_xp.recipe.loader import read_mapping


def sweep_file(hydra_config: HydraConf | DictConfig) -> Path | None:
    """The file of the primary configuration; None for that of sparse_xp itself (``-m`` with words alone)."""
    name = hydra_config.job.config_name
    for source in hydra_config.runtime.config_sources:
        path = Path(str(source.path)) / f"{name}.yaml"
        if source.schema == "file" and name != "config" and path.is_file():
            return path
    return None


def is_grid_only(path: Path) -> bool:
    """Whether the file of a sweep changes nothing but Hydra's settings: then its cells can be run without it."""
    raw = read_mapping(path)
    defaults = [each for each in raw.get("defaults", []) if each not in ("config", "_self_")]
    # A single run asks neither sweeper nor launcher.
    return set(raw) <= {"defaults", "hydra"} and all("hydra/" in "".join(map(str, each)) for each in defaults)


def expand(
    params: dict[str, Any], cells: dict[str, dict[str, Any]], arguments: list[str], parser: Any = None
) -> list[tuple[str, list[str]]]:
    """(name, words) of every run: all combinations of ``params``, changed by a cell's own, changed by ``arguments``.

    Without ``cells`` the names are empty. Raises UserError for a sweep over an interval, which only a search can do.
    """
    parser = parser or OverridesParser.create()
    found = []
    for name, own in (cells or {"": {}}).items():
        words = [word(key, value) for key, value in (params | own).items()]
        axes: dict[str, list[str]] = {}
        for override in parser.parse_overrides([*words, *arguments]):
            check_choice(override)
            key = override.get_key_element()
            if override.is_sweep_override():
                if not override.is_discrete_sweep():
                    raise UserError(f"{override.input_line}: an interval is for a search: hydra/sweeper=search.")
                axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            else:
                axes[key] = [f"{key}={override.get_value_element_as_str()}"]
        found += [(name, list(words)) for words in itertools.product(*axes.values())]
    return found


def word(key: str, value: Any) -> str:
    """``KEY=VALUE`` as the command line takes it; a list is what to sweep over. Raises UserError for a mapping."""
    if isinstance(value, dict):
        raise UserError(f"hydra.sweeper: {key} is a mapping. Write its keys with dots: {key}.{next(iter(value), 'x')}.")
    if isinstance(value, list):
        return f"{key}={','.join(plain(each) for each in value)}"
    return f"{key}={plain(value)}"


def plain(value: Any) -> str:
    """A YAML value as a word."""
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def changes(arguments: list[str], named: bool) -> list[str]:
    """The words of the command line that make a cell another than the one that the file of the sweep describes.

    ``named``: the cells have names; if not, ``recipe=`` picks some of them.
    """
    where = (
        "seed",
        "task",
        *([] if named else ["recipe"]),
        "log",
        "zoo",
        "data.root",
        "data.cache",
        "data.workers",
        "train.threads",
        "train.device",
    )
    return [each for each in arguments if each.split("=")[0] not in where and not each.startswith(("log.", "hydra"))]
