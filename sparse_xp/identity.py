"""Whether the run in a directory is the run of a configuration, and in which keys the two differ.

``config.yaml`` of a run has the hash of its configuration and all of its values. Equal hashes are the same run. The
hash of an earlier version may differ for other reasons (a new key, a key that no longer counts): then the values
decide, and the run keeps the hash that it has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sparse_xp.config import Config, result_hash
from sparse_xp.errors import UserError, shortened
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.result import RESULT
from sparse_xp.run_directory import has_begun, is_run, stored_hash
from sparse_xp.run_names import LABELS, affects_result, normal_path
from sparse_xp.target_cpu import find_speedup_pruner

#: keys that a run fills in from its data, where the configuration leaves them out
FILLED_IN = ("task.classes", "task.loss")
#: differing keys that a message lists
SHOWN = 8


class Difference(NamedTuple):
    """A key with another value: of the run in a directory, and of a configuration."""

    key: str
    stored: Any
    given: Any

    def __str__(self) -> str:
        there, here = (shortened(str(_shown(value)), 80) for value in (self.stored, self.given))
        return f"{self.key}: {there} there, {here} here"


def run_hash(directory: Path, config: Config) -> str:
    """Return the hash of ``config``, or the one under which an earlier version began its run in ``directory``.

    Raises UserError, with the keys that differ, if ``directory`` holds a run of another configuration.
    """
    given = result_hash(config)
    if not (has_begun(directory) and is_run(directory)) or (stored := stored_hash(directory)) == given:
        return given
    if differing := differences(directory, config):
        raise UserError(
            f"{directory} holds a run of another configuration. {list_differences(differing)} Remove the directory, or "
            "give this run its own with hydra.run.dir=."
        )
    return stored


def hash_in(directory: Path, config: Config) -> str:
    """Return ``run_hash``, and the hash of ``config`` where the directory holds another run or a damaged one."""
    try:
        return run_hash(directory, config)
    except UserError:
        return result_hash(config)


def list_differences(differing: list[Difference]) -> str:
    """Return the keys that differ as a sentence, ``SHOWN`` at most."""
    more = f"; and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
    return f"They differ in {'; '.join(map(str, differing[:SHOWN]))}{more}."


def differences(directory: Path, config: Config) -> list[Difference]:
    """Return the keys that affect the result and have other values in the ``config.yaml`` of ``directory``.

    A key that the file lacks is a new one: the run had its default. Raises UserError for a damaged file.
    """
    path = directory / "config.yaml"
    with explain_read_errors(path, f"Restore it, or move {directory} away: the same command makes the run again."):
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(stored, dict):
            raise ValueError("it is no mapping")
    ignored: tuple[str, ...] = (*LABELS, "zoo")
    if not os.path.lexists(directory / RESULT):
        ignored = (*ignored, "recipe.name")  # a run may get another name until it is finished
    if (pruner := find_speedup_pruner(config)) and pruner.latency:
        ignored = (*ignored, "quantization")  # measurements have decided it
    return [
        each
        for each in _compare(config, stored, "")
        if affects_result(each.key)
        and each.key not in ignored
        and not (each.key in FILLED_IN and not each.given)
        and not each.key.startswith(tuple(f"{key}." for key in ignored))
    ]


def _compare(given: object, stored: object, key: str) -> Iterator[Difference]:
    """Yield the differences between a part of a configuration and what ``config.yaml`` says of it."""
    if is_dataclass(given) and not isinstance(given, type) and isinstance(stored, dict):
        for field in fields(given):
            value, inner = getattr(given, field.name), f"{key}.{field.name}".lstrip(".")
            if field.name in stored:
                yield from _compare(value, stored[field.name], inner)
            elif value != (default := _default(field)):
                yield Difference(inner, default, value)
    elif isinstance(given, dict) and isinstance(stored, dict):
        for name in dict.fromkeys([*stored, *given]):
            yield from _compare(given.get(name), stored.get(name), f"{key}.{name}")
    elif _plain(given) != _plain(stored):
        yield Difference(key, stored, given)


def _default(field: Field[Any]) -> object:
    """Return the default of a field, None if it has none."""
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def _plain(value: object) -> object:
    """Return a value as ``config.yaml`` has it: tuples are lists. A path has one spelling."""
    if isinstance(value, str):
        return normal_path(value)
    return list(value) if isinstance(value, tuple) else value


def _shown(value: object) -> object:
    """Return a value as a user writes it."""
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__
    if isinstance(value, dict):
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).strip()
    return {None: "null", True: "true", False: "false"}.get(value, value) if isinstance(value, bool | None) else value
