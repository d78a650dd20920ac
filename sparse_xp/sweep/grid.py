"""The grid of a sweep: its file, and the overrides of every run that it stands for."""

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

#: keys of the command line that pick cells of the sweep's file (``seed``, ``task``) or that move no number
NEUTRAL_KEYS = (
    *("seed", "task", "log", "zoo"),
    *("data.root", "data.cache", "data.workers", "train.threads", "train.device"),
)


def sweep_file(hydra_config: HydraConf | DictConfig) -> Path | None:
    """Return the file of the primary configuration; None for that of sparse_xp itself (``-m`` with overrides alone)."""
    name = hydra_config.job.config_name
    for source in hydra_config.runtime.config_sources:
        path = Path(str(source.path)) / f"{name}.yaml"
        if source.schema == "file" and name != "config" and path.is_file():
            return path
    return None


def is_grid_only(path: Path) -> bool:
    """Return whether the file of a sweep sets only Hydra's options, so that its cells can run without the file."""
    raw = read_mapping(path)
    defaults = [entry for entry in raw.get("defaults", []) if entry not in ("config", "_self_")]
    # A single run uses neither sweeper nor launcher.
    return set(raw) <= {"defaults", "hydra"} and all("hydra/" in "".join(map(str, entry)) for entry in defaults)


def expand_grid(
    params: dict[str, Any],
    cells: dict[str, dict[str, Any]],
    arguments: list[str],
    parser: OverridesParser | None = None,
) -> list[tuple[str, list[str]]]:
    """Return (name, overrides) of every run: all combinations of ``params``, of each cell's own, of ``arguments``.

    Of equal keys the later one counts: a cell changes ``params``, and the command line changes both. Without ``cells``
    the names are empty. Raises UserError for a sweep over an interval, which only a search can do.
    """
    parser = parser or OverridesParser.create()
    runs = []
    for name, own in (cells or {"": {}}).items():
        axes: dict[str, list[str]] = {}
        for override in parser.parse_overrides([*to_overrides(params | own), *arguments]):
            check_choice(override)
            key = override.get_key_element()
            if not override.is_sweep_override():
                axes[key] = [f"{key}={override.get_value_element_as_str()}"]
            elif override.is_discrete_sweep():
                axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            else:
                raise UserError(f"{override.input_line}: an interval is for a search: hydra/sweeper=search.")
        runs += [(name, list(overrides)) for overrides in itertools.product(*axes.values())]
    return runs


def to_overrides(values: dict[str, Any]) -> list[str]:
    """Return YAML values as overrides."""
    return [to_override(key, value) for key, value in values.items()]


def to_override(key: str, value: object) -> str:
    """Return ``KEY=VALUE`` as the command line takes it; a list is swept over. Raises UserError for a mapping."""
    if isinstance(value, dict):
        raise UserError(f"hydra.sweeper: {key} is a mapping. Write its keys with dots: {key}.{next(iter(value), 'x')}.")
    if isinstance(value, list):
        return f"{key}={','.join(yaml_text(item) for item in value)}"
    return f"{key}={yaml_text(value)}"


def yaml_text(value: object) -> str:
    """Return a YAML scalar as it is written in an override."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def changing_overrides(arguments: list[str], named: bool) -> list[str]:
    """Return the overrides of the command line that make a cell another run than the sweep's file describes.

    ``named``: whether the cells have names; without names ``recipe=`` only picks some of them.
    """
    neutral = NEUTRAL_KEYS if named else (*NEUTRAL_KEYS, "recipe")
    return [
        argument
        for argument in arguments
        if argument.split("=")[0] not in neutral and not argument.startswith(("log.", "hydra"))
    ]
