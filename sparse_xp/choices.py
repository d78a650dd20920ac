"""The words of a command as choices: a group of the defaults list needs one option of it, and is never empty."""

from __future__ import annotations

import difflib
import os
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
from sparse_xp.errors import GROUPS, UserError
from sparse_xp.places import CONF

#: options of Hydra's own that take a word behind them
TAKE_WORD = ("--config-dir", "--config-name", "--config-path", "-cd", "-cn", "-cp", "--package", "-p", "--cfg", "-c")
KEYS = tuple(field.name for field in fields(Config))
#: parts of a run without options: their keys are changed one by one
PARTS = ("data", "export", "hydra")
PLACES = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "data.cache")


def overrides_of(words: Sequence[str]) -> list[str]:
    """The words ``KEY=VALUE``, ``~KEY`` of a command, without Hydra's own options and the words that belong to them."""
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and before not in TAKE_WORD and word
    ]


def config_dirs(words: Sequence[str]) -> list[Path]:
    """The directories of configurations that a command adds to the one of sparse_xp."""
    names, found = ("--config-dir", "-cd"), []
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if before in names:
            found.append(Path(word))
        elif equals and option in names:
            found.append(Path(value))
    return found


def check_words(words: Iterable[str], folders: Sequence[Path] = ()) -> None:
    """Raise UserError for a word that leaves a group or a place empty. What Hydra cannot read is left to Hydra."""
    parser = OverridesParser.create()
    for word in words:
        try:
            override = parser.parse_override(word)
        except HydraException:
            continue
        check_choice(override, folders)


def check_choice(override: Override, folders: Sequence[Path] = ()) -> None:
    """Raise UserError, with the options, for a word that gives a group anything but one of its options."""
    key, value = override.key_or_group, override.value()
    word = str(override.input_line or override.get_key_element())
    if override.is_delete():
        if key in KEYS or key == "hydra":
            raise UserError(f"{word}: {key} cannot be left out. {ways(key, '', folders)}")
        return
    for each in value.list if isinstance(value, ChoiceSweep) else [value]:
        number = isinstance(each, int | float) and not isinstance(each, bool)
        if key in PLACES and not number and not (is_text(each) and str(plain(each)).strip()):
            raise UserError(f"{word}: {key} cannot be empty, and is one path: {key}=DIR.")
        if key != "hydra" and is_group(override, folders):
            if not (is_text(each) and str(plain(each)).strip()):
                raise UserError(f"{word}: {key} cannot be {kind_of(each)}. {ways(key, each, folders)}")
        elif key in PARTS and not (isinstance(each, dict) and each):
            raise UserError(f"{word}: {key} cannot be {kind_of(each)}. {ways(key, each, folders)}")


def is_group(override: Override, folders: Sequence[Path]) -> bool:
    """Whether a word chooses an option: Hydra asks whether there is such a folder."""
    key = override.key_or_group
    if not key or key in GROUPS or "/" in key or override.package:
        return bool(key)
    return key not in PARTS and bool(options(key, folders))


def is_text(value: Any) -> bool:
    """Whether a value of Hydra's grammar is a word."""
    return isinstance(value, str | QuotedString)


def plain(value: Any) -> Any:
    """A word without its quotes."""
    return value.text if isinstance(value, QuotedString) else value


def kind_of(value: Any) -> str:
    """What was given in place of an option."""
    if isinstance(value, list) and value:
        return "a list"
    if isinstance(value, dict) and value:
        return "a mapping"
    return "empty" if value is None or not value or (is_text(value) and not plain(value)) else f"{value}"


def ways(key: str, value: Any, folders: Sequence[Path]) -> str:
    """What to write in place of it."""
    known = [] if key == "hydra" else options(key, folders)
    if known:
        first = str(plain(value[0] if isinstance(value, list) and value else value or ""))
        nearest = next(iter(difflib.get_close_matches(first, known, n=1, cutoff=0.5)), "") or by_itself(key, known)
        inner = isinstance(value, dict) and next(iter(value), None)
        keys = f" The keys of an option are changed with dots: {key}.{inner}=." if inner else ""
        return f"Did you mean {key}={nearest}?{keys} There are: {', '.join(known)}."
    part = next((field for field in fields(Config) if field.name == key), None)
    if part is None or not callable(part.default_factory):
        return f"Leave the word out, or change a key: {key}.KEY=VALUE."
    keys = ", ".join(f"{key}.{field.name}" for field in fields(part.default_factory()))
    return f"Leave the word out for its defaults, or change a key of it: {keys}."


def by_itself(group: str, known: Sequence[str]) -> str:
    """The option that means nothing of the kind, else the one that a command has which says nothing of the group."""
    if "none" in known:
        return "none"
    told = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = {str(key): str(option) for each in told if isinstance(each, dict) for key, option in each.items()}
    return chosen.get(group, known[0])


def options(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """The options of a group: of ``conf/``, of Hydra, of directories of the user's own, and those without a file."""
    found: set[str] = set()
    for folder in (CONF, Path(hydra.__file__).parent / "conf", *folders):
        try:
            found |= {path.stem for path in (folder / group).glob("*.yaml")}
        except (OSError, ValueError):  # no folder has such a name
            continue
    return sorted(found | set(stored(group)))


def stored(group: str) -> Iterator[str]:
    """The options that were given to Hydra from Python."""
    node: Any = ConfigStore.instance().repo
    for part in group.split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, dict):
        yield from (name.removesuffix(".yaml") for name, each in node.items() if not isinstance(each, dict))


def check_files(words: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise UserError for a file of the user's own that the words name and that is no mapping of YAML, or too large.

    ``words``: all of the command. Files that those files name are Hydra's to find.
    """
    from sparse_xp.recipe.loader import read_mapping

    names = [value for before, value in zip(["", *words], words, strict=False) if before in ("--config-name", "-cn")]
    names += [word.partition("=")[2] for word in words if word.startswith(("--config-name=", "-cn="))]
    for word in overrides_of(words):
        key, equals, value = word.lstrip("+").partition("=")
        if equals and len(value) < 1000:
            names += [f"{key.partition('@')[0]}/{each.strip()}" for each in value.split(",")]
    for folder in folders:
        for name in names:
            path = folder / (name if name.endswith(".yaml") else f"{name}.yaml")
            try:
                there = os.path.lexists(path)
            except ValueError:
                continue
            if there and len(name) < 255:
                read_mapping(path)
