"""Check overrides that choose an option of a group: a group needs exactly one of its options, and is never empty."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException

from sparse_xp.config import Config
from sparse_xp.errors import UserError
from sparse_xp.places import CONF, GROUPS

#: options of Hydra that take a value as the next argument
OPTIONS_WITH_VALUE = (
    "--config-dir",
    "--config-name",
    "--config-path",
    "-cd",
    "-cn",
    "-cp",
    "--package",
    "-p",
    "--cfg",
    "-c",
)
KEYS = tuple(field.name for field in fields(Config))
#: sections of the configuration without options: only their keys can be changed
SECTIONS = ("data", "export", "hydra")
PATH_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "data.cache")


def overrides_in(argv: Sequence[str]) -> list[str]:
    """Return the overrides ``KEY=VALUE`` and ``~KEY`` in ``argv``, without the options of Hydra and their values."""
    return [
        argument
        for before, argument in zip(["", *argv], argv, strict=False)
        if not argument.startswith("-") and before not in OPTIONS_WITH_VALUE and argument
    ]


def config_directories(argv: Sequence[str]) -> list[Path]:
    """Return the directories of ``--config-dir`` in ``argv``."""
    names, directories = ("--config-dir", "-cd"), []
    for before, argument in zip(["", *argv], argv, strict=False):
        option, equals, value = argument.partition("=")
        if before in names:
            directories.append(Path(argument))
        elif equals and option in names:
            directories.append(Path(value))
    return directories


def check_overrides(overrides: Iterable[str], folders: Sequence[Path] = ()) -> None:
    """Raise UserError for an override that leaves a group or a path empty, and for a group that is chosen twice.

    Overrides that cannot be parsed are skipped; Hydra reports them.
    """
    parser = OverridesParser.create()
    chosen: dict[str, str] = {}
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            continue
        check_choice(override, folders)
        group = override.key_or_group
        if group in GROUPS and not override.is_delete() and chosen.setdefault(group, text) != text:
            raise UserError(f"{chosen[group]} and {text}: {group} is chosen twice. Leave one of them out.")


def check_choice(override: Override, folders: Sequence[Path] = ()) -> None:
    """Raise UserError, with the options, for an override that gives a group anything but one of its options."""
    key, value = override.key_or_group, override.value()
    text = str(override.input_line or override.get_key_element())
    if override.is_delete():
        if key in (*KEYS, *GROUPS, "hydra"):
            raise UserError(f"{text}: {key} cannot be left out. {_advice(key, '', folders)}")
        return
    for each in value.list if isinstance(value, ChoiceSweep) else [value]:
        number = isinstance(each, int | float) and not isinstance(each, bool)
        if key in PATH_KEYS and not number and not (_is_text_value(each) and str(_unquoted(each)).strip()):
            raise UserError(f"{text}: {key} cannot be empty, and is one path: {key}=DIR.")
        if key != "hydra" and is_group(override, folders):
            if not (_is_text_value(each) and str(_unquoted(each)).strip()):
                raise UserError(f"{text}: {key} cannot be {_describe_value(each)}. {_advice(key, each, folders)}")
        elif key in SECTIONS and not (isinstance(each, dict) and each):
            raise UserError(f"{text}: {key} cannot be {_describe_value(each)}. {_advice(key, each, folders)}")


def is_group(override: Override, folders: Sequence[Path]) -> bool:
    """Return whether an override chooses an option, by the rules of Hydra."""
    key = override.key_or_group
    if not key or key in GROUPS or "/" in key or override.package:
        return bool(key)
    return key not in SECTIONS and bool(options(key, folders))


def _is_text_value(value: object) -> bool:
    """Return whether a value of Hydra's grammar is a text."""
    return isinstance(value, str | QuotedString)


def _unquoted(value: object) -> object:
    """Remove the quotes of a text; return any other value unchanged."""
    return value.text if isinstance(value, QuotedString) else value


def _describe_value(value: object) -> str:
    """Describe a value that is not an option, for a message."""
    if isinstance(value, list) and value:
        return "a list"
    if isinstance(value, dict) and value:
        return "a mapping"
    return "empty" if value is None or not value or (_is_text_value(value) and not _unquoted(value)) else f"{value}"


def _advice(key: str, value: object, folders: Sequence[Path]) -> str:
    """Return what to write instead of ``value``, as the end of a message."""
    known = [] if key == "hydra" else options(key, folders)
    if known:
        first = str(_unquoted(value[0] if isinstance(value, list) and value else value or ""))
        nearest = next(iter(difflib.get_close_matches(first, known, n=1, cutoff=0.5)), "") or _default_option(
            key, known
        )
        inner = isinstance(value, dict) and next(iter(value), None)
        keys = f" The keys of an option are changed with dots: {key}.{inner}=." if inner else ""
        return f"Did you mean {key}={nearest}?{keys} There are: {', '.join(known)}."
    part = next((field for field in fields(Config) if field.name == key), None)
    if part is None or not callable(part.default_factory):
        return f"Leave the word out, or change a key: {key}.KEY=VALUE."
    keys = ", ".join(f"{key}.{field.name}" for field in fields(part.default_factory()))
    return f"Leave the word out for its defaults, or change a key of it: {keys}."


def _default_option(group: str, known: Sequence[str]) -> str:
    """Return the option ``none`` if the group has it, else the default option of the group."""
    if "none" in known:
        return "none"
    defaults = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = {str(key): str(option) for entry in defaults if isinstance(entry, dict) for key, option in entry.items()}
    return chosen.get(group, known[0])


def options(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """Return the options of a group: in ``conf/``, in Hydra, in ``folders`` of the user, and those without a file."""
    found: set[str] = set()
    for folder in (CONF, Path(hydra.__file__).parent / "conf", *folders):
        try:
            found |= {path.stem for path in (folder / group).glob("*.yaml")}
        except (OSError, ValueError):  # not the name of a folder
            continue
    return sorted(found | set(_registered_options(group)))


def _registered_options(group: str) -> Iterator[str]:
    """Yield the options that are registered in Hydra's ConfigStore."""
    node: Any = ConfigStore.instance().repo
    for part in group.split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, dict):
        yield from (name.removesuffix(".yaml") for name, each in node.items() if not isinstance(each, dict))
