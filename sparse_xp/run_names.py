"""The name of a run's directory, and which keys of a configuration are part of what a run is.

A name has the task, the model, the recipe, what else was chosen, and the seed. It stays short: what does not fit, or
cannot be part of a file name, is replaced by a hash. The whole of it stands in ``config.yaml`` and in the table.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

#: keys (of an option or of a whole group) that affect no number of a result: neither the name nor the hash of a run
#: depends on them. ``train.device``: a run may continue on another machine, as with ``auto``.
#: ``data.root``: a mirror of the hub's data; ``inputs.py`` notices if its rows are others.
NOT_IN_RESULT = (
    "log",
    "train.device",
    "train.threads",
    "train.keep_checkpoints",
    "train.keep_states",
    "data.root",
    "data.cache",
    "data.workers",
    "data.max_rows",
    "data.max_gigabytes",
    "export.max_abs_diff",
    "export.max_metric_diff",
    "export.max_rms_diff_int8",
    "export.max_metric_diff_int8",
    "export.target_cpu",
)
#: keys that say how a result is called, and follow from others
LABELS = ("model.name", "recipe.promise")
#: keys with a part of their own in the name
NAMED = ("task", "model", "recipe", "profile", "seed")
#: the most characters of a name that spells out its overrides
LONGEST = 60
#: directories inside of a run: a checkpoint there is called after the run
PARTS_OF_A_RUN = ("model", "deployment", "best", "checkpoints")


def affects_result(key: str) -> bool:
    """Return whether the value of this key can change a number of the result."""
    return not _is_within(key, NOT_IN_RESULT)


def run_name(
    choices: Mapping[str, Any], overrides: Iterable[str], profile: str, seed: int, parent: str | None = None
) -> str:
    """Return the directory name of a run: task, model, recipe, profile, what else was overridden, and the seed.

    An override that is given twice counts once, as its last value; the order of the others does not matter. Overrides
    are spelled out if the name then has at most ``LONGEST`` characters, else a hash of them stands there.

    Args:
        choices: Hydra's group choices.
        overrides: The overrides of the command line.
        profile: The name of the profile. The profile ``full`` is left out.
        seed: The seed of the run.
        parent: The directory that the run's directory is in. A run that an earlier version made there keeps its name.
    """
    overrides = list(map(str, overrides))
    others = {
        key: value for key, value in _values(overrides).items() if key not in NAMED and affects_result(key.lstrip("~"))
    }
    others = {key: value for key, value in others.items() if not _is_within(key.lstrip("~"), LABELS)}
    # Names of files are cut: the hash of the overrides tells them apart. Names of options are not.
    model = _slug(checkpoint_name(overrides) or "")[:24] or str(choices["model"])
    recipe = _slug(recipe_file_name(overrides) or "")[:24] or str(choices["recipe"])
    if own := others.pop("recipe.name", None):
        recipe, others["recipe"] = _slug(own), str(choices["recipe"])  # two recipes may get one name
    elif recipe == "dense" and "recipe" not in _values(overrides) and others.get("sparsity", "none") != "none":
        recipe = others.pop("sparsity")  # nobody asked for a dense model
    parts = [str(choices["task"]), model, recipe, *([profile] if profile != "full" else [])]
    words = [f"{key}={value}" if value else key for key, value in sorted(others.items())]
    name = ",".join([*parts, *words, f"seed={seed}"])
    if len(name) > LONGEST or any(re.search(r"[^\w.=+~%-]", word) for word in words):
        name = ",".join([*parts, *([_digest(others)] if others else []), f"seed={seed}"])
    if parent is None or (Path(parent) / name).exists():
        return name
    lasting = [each for each in overrides if affects_result(each.lstrip("+~").partition("=")[0])]
    earlier = (earlier_run_name(choices, words, profile, seed) for words in (overrides, lasting))
    return next((each for each in earlier if _holds(Path(parent) / each, others)), name)


def checkpoint_name(overrides: Iterable[str]) -> str | None:
    """Return the name of a model that is given by its checkpoint alone, None if an option or a name was chosen.

    It is the last part of the path or hub id. A directory of a run is called after the run.
    """
    values = _values(overrides)
    if "model" in values or "model.name" in values or not (path := values.get("model.checkpoint")):
        return None
    parts = [part for part in path.partition("?")[0].split("/") if part not in ("", ".", "..", "~")]
    if len(parts) > 2 and parts[-2] == "checkpoints":
        parts = parts[:-2]
    while len(parts) > 1 and parts[-1] in PARTS_OF_A_RUN:
        parts.pop()
    return parts[-1] if parts else None


def recipe_file_name(overrides: Iterable[str]) -> str | None:
    """Return the name of the recipe that ``recipe=file`` reads, without its suffix; None for another recipe."""
    values = _values(overrides)
    path = values.get("recipe.path", "")
    return Path(path.partition("?")[0]).stem if values.get("recipe") == "file" and path and "\n" not in path else None


def _values(overrides: Iterable[str]) -> dict[str, str]:
    """Return the last value of each key, without quotes; an override without a value has an empty one."""
    values: dict[str, str] = {}
    for override in overrides:
        key, _, value = str(override).lstrip("+").partition("=")
        values.pop(key, None)
        values[key] = value.strip("'\"")
    return values


def _is_within(key: str, keys: Iterable[str]) -> bool:
    """Return whether a key is one of ``keys``, or below one of them."""
    return f"{key}.".startswith(tuple(f"{each}." for each in keys))


def _slug(text: str) -> str:
    """Return the text with every character that a file name should not have replaced by ``_``."""
    return re.sub(r"[^\w.=+~%-]+", "_", text)


def _digest(values: Mapping[str, str]) -> str:
    """Return six hex digits over keys and values. Spellings of one number are one value: 3, 3.0 and 3e0."""

    def plain(value: str) -> str:
        try:
            return repr(float(value))
        except ValueError:
            return value

    text = "\n".join(f"{key}={normal_path(plain(value))}" for key, value in sorted(values.items()))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:6]


def normal_path(text: str) -> str:
    """Return a path that exists in one spelling, relative to the current directory if it is below; else the text."""
    try:
        if "/" not in text or not os.path.exists(text):
            return text
    except ValueError:  # a null byte
        return text
    path = os.path.abspath(text)
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def _holds(directory: Path, values: Mapping[str, str]) -> bool:
    """Return whether ``directory`` holds a run of an earlier version with these values.

    Earlier names had only the last part of a path, so the paths in its ``config.yaml`` are compared.
    """
    try:
        stored = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    for key, value in values.items():
        node = stored
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if "/" in value and isinstance(node, str) and normal_path(node) != normal_path(value):
            return False
    return isinstance(stored, dict)


#: the keys that earlier versions left out of names
_EARLIER_NOT_IN_RESULT = tuple(
    key for key in NOT_IN_RESULT if key not in ("train.threads", "data.root", "data.workers")
)


def earlier_run_name(choices: Mapping[str, Any], overrides: Iterable[str], profile: str, seed: int) -> str:
    """Return the name that earlier versions gave the directory of this run."""
    extra = []
    for override in overrides:
        key, _, value = str(override).lstrip("+").partition("=")
        if key not in NAMED and not _is_within(key, _EARLIER_NOT_IN_RESULT):
            value = value.strip("'\"")
            if value.count("/") > 1 or value[:1] in "./":
                last = 2 if key == "recipe.path" else 1
                value = "/".join(value.rstrip("/").split("/")[-last:])
            extra.append(f"{key}={value}")
    parts = [
        *(str(choices["task"]), str(choices["model"]), str(choices["recipe"])),
        *([profile] if profile != "full" else []),
    ]
    parts += [_slug(part) for part in sorted(extra)]
    name = ",".join(parts)
    if len(name.encode()) > 180:
        name = f"{name.encode()[:160].decode(errors='ignore')}~{hashlib.sha256(name.encode()).hexdigest()[:10]}"
    return f"{name},seed={seed}"
