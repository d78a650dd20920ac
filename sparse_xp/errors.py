"""The one class of error that a user is meant to read, and the nearest right name for a wrong one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.errors import CompactHydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException


class UserError(CompactHydraException):
    """Something the user can mend: the message says what is wrong, where, and what to write instead.

    Printed without a traceback; ``HYDRA_FULL_ERROR=1`` shows it.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest of ``known``, or an empty string when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


def explain(error: BaseException) -> str:
    """The message of an error of ours or of Hydra's, with the nearest right name where a name was wrong."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = ", ".join(error.options)
        return f"{group}={name}: there is no such {group}.{did_you_mean(name, error.options)} There are: {options}."
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: {error.problem}."
    if overrides_nothing(error):
        return (
            "A value is given for sparsity or quantization, but that group is none: choose an option of it first "
            "(sparsity=gradual, say)."
        )
    # Hydra chains the error for a word of the command line, and only quotes the one for a line of a file.
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or error.__context__
    if not isinstance(cause, OmegaConfBaseException):
        return str(error)
    parent, key = cause.parent_node, str(cause.key)
    where = cause.full_key or key
    known = [str(name) for name in parent.keys()] if isinstance(parent, DictConfig) else [key]  # noqa: SIM118
    if key not in known:
        return unknown_key(where, key, known)
    told = (cause.msg or str(cause)).splitlines()[0]
    percent = re.match(r"Value '(\d+(?:\.\d+)?)%'.* could not be converted to Float", told)
    return f"{where}: {told}" + (f". Write {float(percent[1]) / 100:g}." if percent else "")


def unknown_key(where: str, key: str, known: list[str]) -> str:
    """The message for a key that is not among ``known``, its neighbours."""
    return f"There is no key '{where}'.{did_you_mean(key, known)} There are: {', '.join(known) or 'none'}."


def overrides_nothing(error: BaseException) -> bool:
    """Whether this is how OmegaConf reports ``sparsity.params=...`` under ``sparsity=none``."""
    return isinstance(error, AssertionError) and str(error) == "Unexpected type for root: NoneType"


GROUPS = ("task", "model", "teacher", "sparsity", "quantization", "recipe", "train", "log", "profile")


def no_such_sweep(words: list[str]) -> str | None:
    """What a ``--config-name`` that is no file of ``--config-dir`` should have been; None if it is one."""
    given = dict(pairwise(words))
    given |= dict(word.split("=", 1) for word in words if word.startswith("--config-") and "=" in word)
    name, folder = given.get("--config-name", given.get("-cn")), given.get("--config-dir", given.get("-cd"))
    there = sorted(path.stem for path in Path(folder or ".").glob("*.yaml"))
    if not (name and folder) or name.removesuffix(".yaml") in (*there, "config"):
        return None
    known = f" There are: {', '.join(there)}." if there else ""
    return f"--config-name {name}: there is no {folder}/{name}.yaml.{did_you_mean(name, there)}{known}"


def wrong_form(words: list[str]) -> str | None:
    """What to write in place of ``--task=squad``, ``--task squad`` or ``task squad``, if a word is of that kind."""
    for word, before, after in zip(words, ["", *words], [*words[1:], ""], strict=False):
        key, equals, value = word.lstrip("-").partition("=")
        value = value if equals else after if after and "=" not in after else "VALUE"
        if key.split(".")[0] not in (*GROUPS, "seed", "data", "export"):
            continue
        if word.startswith("--"):
            return f"{word}: values are given without dashes: {key}={value}"
        if not equals and not before.startswith(("--", "-c", "-p")):  # those of Hydra's options that take a word
            return f"{word}: want KEY=VALUE, as in {key}={value}."
    return None


def welcome(conf: Path) -> str:
    """What can be chosen, and which command to try first."""
    width = max(map(len, GROUPS))
    options = "\n".join(
        f"  {group:<{width}}  {' '.join(sorted(path.stem for path in (conf / group).glob('*.yaml')))}"
        for group in GROUPS
    )
    return f"""sparse_xp: sparse, distilled, deployable BERT-class encoders.

Try first (a minute, nothing is fetched):
  python -m sparse_xp task=squad recipe=pruned80 profile=embedded

Choose one of each with GROUP=OPTION:
{options}

Change any number with KEY=VALUE (train.epochs=4 recipe.sparsity=0.9), sweep with -m and commas (recipe=dense,pruned80).
`--cfg job` prints the configuration a command would run with, `--help` all groups; README.md has the rest."""


def quick_help(conf: Path) -> str:
    """What ``--help`` prints, at once: Hydra copies every schema for every group to list its options."""
    found: dict[str, list[str]] = {}
    for path in sorted(conf.glob("*/*.yaml")):
        found.setdefault(path.parent.name, []).append(path.stem)
    for place, kinds in _stored(ConfigStore.instance().repo):
        found.setdefault(place, []).extend(kinds)
    listed = "\n".join(f"{group}: {', '.join(found[group])}" for group in sorted(found) if "hydra" not in group)
    template = yaml.safe_load((conf / "config.yaml").read_text(encoding="utf-8"))["hydra"]["help"]["template"]
    return str(template).replace("$APP_CONFIG_GROUPS", f"{listed}\n")


def _stored(repo: dict[str, Any], place: str = "") -> Iterator[tuple[str, list[str]]]:
    """The groups of the ConfigStore with the names that they hold."""
    for name, child in repo.items():
        if isinstance(child, dict):
            inner = f"{place}/{name}".strip("/")
            if kinds := sorted(key.removesuffix(".yaml") for key, node in child.items() if not isinstance(node, dict)):
                yield inner, kinds
            yield from _stored(child, inner)
