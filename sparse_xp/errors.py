"""The one class of error that a user is meant to read, and the nearest right name for a wrong one."""

from __future__ import annotations

import difflib
import errno
import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.errors import CompactHydraException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
)

#: characters of a message that are shown; a name or a list of an untrusted file may have millions
LONGEST = 2000


class UserError(CompactHydraException):
    """Something the user can mend: the message says what is wrong, where, and what to write instead.

    Printed without a traceback; ``HYDRA_FULL_ERROR=1`` shows it.
    """

    def __init__(self, message: str):
        super().__init__(shortened(message))


def shortened(text: str, most: int = LONGEST) -> str:
    """``text`` as a terminal may show it: without control characters, and what is too long cut in its middle."""
    text = "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text[: 100 * most])
    if len(text) <= most:
        return text
    head, tail = most * 3 // 4, most // 4
    return f"{text[:head]} [... {len(text) - head - tail:,} characters ...] {text[-tail:]}"


def wants_traceback() -> bool:
    """Whether ``HYDRA_FULL_ERROR`` asks where an error happened."""
    return os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")


@contextmanager
def short_errors(traceback: bool, hint: bool = False) -> Iterator[None]:
    """End the process with one short message for an error that the user can mend: what every command is run in.

    ``hint``: with a line on how to see where it happened.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name of a file may have bytes that are not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except KeyboardInterrupt:
        if traceback:
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # who read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except Exception as error:
        if traceback or not can_be_mended(error):
            raise
        sys.exit(shortened(explain(error)) + "\n(HYDRA_FULL_ERROR=1 shows where it happened.)" * hint)


def can_be_mended(error: BaseException) -> bool:
    """Whether an error is the user's to mend: ours, Hydra's, and the operating system's with a file."""
    if isinstance(error, CompactHydraException | OmegaConfBaseException | yaml.YAMLError) or composing(error):
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, OSError) and error.filename is not None and error.strerror is not None


#: who reads and composes what the user has written, before a line of ours sees it
COMPOSERS = ("hydra", "omegaconf", "yaml", "antlr4")


def composing(error: BaseException) -> bool:
    """Whether Hydra stumbled over words or files of the user's, while it composed a configuration of them.

    It has an error of its own for most mistakes, and for others whatever Python raised: null where an option is wanted,
    a list in place of a file's mapping. An error below ``main`` of ``sparse_xp.__main__`` is the run's, and not meant.
    """
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append((str(trace.tb_frame.f_globals.get("__name__")), code.co_name, code.co_filename))
        trace = trace.tb_next
    if any(name == "main" and file == str(Path(__file__).parent / "__main__.py") for _, name, file in frames):
        return False
    ours = [module.split(".")[0] for module, *_ in frames]
    ours = [module for module in ours if module in (*COMPOSERS, "sparse_xp", "hydra_plugins")]
    return "hydra" in ours and ours[-1] in COMPOSERS


def innermost(error: BaseException) -> str:
    """The function that raised an error, with its module."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__')}.{trace.tb_frame.f_code.co_name}" if trace else "nobody"


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
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {(error.strerror or '').lower()}.{way_out(error)}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "No space left on the disk that this command writes its output to."
    if overrides_nothing(error):
        return (
            "A value is given for sparsity or quantization, but that group is none: choose an option of it first "
            "(sparsity=gradual, say)."
        )
    # Hydra chains the error for a word of the command line, and only quotes the one for a line of a file.
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or error.__context__
    if not isinstance(cause, OmegaConfBaseException):
        if isinstance(error, CompactHydraException | HydraException):
            return str(error)
        told = str(error).partition("\n")[0] or f"refused by {innermost(error)}"
        return f"The configuration cannot be composed of these words and files: {type(error).__name__}: {told}"
    told = (cause.msg or str(cause)).splitlines()[0]
    if isinstance(cause, InterpolationKeyError | InterpolationResolutionError | InterpolationToMissingValueError):
        return f"{cause.full_key or cause.key}: {told.removeprefix('MissingMandatoryValue while resolving ')}"
    parent, key = cause.parent_node, str(cause.key)
    where = cause.full_key or key
    known = [str(name) for name in parent.keys()] if isinstance(parent, DictConfig) else [key]  # noqa: SIM118
    if key not in known and cause.key is not None:
        return unknown_key(where, key, known)
    if told.endswith("is not Optional"):
        return f"{where} cannot be empty.{wanted(parent, key)}"
    if told.endswith("does not support deletion"):
        return f"{where} cannot be left out.{wanted(parent, key)}"
    percent = re.match(r"Value '(\d+(?:\.\d+)?)%'.* could not be converted to Float", told)
    return f"{where}: {told}" + (f". Write {float(percent[1]) / 100:g}." if percent else "")


def wanted(parent: Any, key: str) -> str:
    """What a key of the schema takes, and what it has by itself."""
    kind = OmegaConf.get_type(parent) if isinstance(parent, DictConfig) else None
    found = {each.name: each for each in fields(kind)} if is_dataclass(kind) else {}
    if key not in found:
        return " Give it a value."
    default, kinds = found[key].default, {"int": "a whole number", "float": "a number", "bool": "true or false"}
    by_itself = "" if default in (MISSING, "???", None, "") else f", {default} by default"
    return f" It takes {kinds.get(str(found[key].type), 'a value')}{by_itself}."


def way_out(error: OSError) -> str:
    """What to do about a place that cannot be written; nothing where that does not follow from the error."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            " Name a place that you may read and write: hydra.run.dir= of a run (hydra.sweep.dir= of a sweep), "
            "data.cache= of the cache, out= otherwise."
        )
    return ""


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
    """What to write in place of ``--task=squad``, ``--task squad`` or ``task squad``, if a word is of that kind.

    And of a word that no file of a run could hold.
    """
    for word in words:
        if any("\ud800" <= char <= "\udfff" for char in word):
            return f"{word}: it has bytes that are not UTF-8. Give the file another name."
        if any(unicodedata.category(char) == "Cc" and char not in "\t\n\r" for char in word):
            return f"{word}: it has control characters. Give the file another name."
        if word.startswith("-") and (len(word) > LONGEST or not word.isprintable()):
            return f"{word}: there is no such option."
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


def choose(key: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ValueError, with the nearest known name, unless ``value`` is one of ``known``."""
    if value not in known:
        raise ValueError(f"{key}={value}: want one of {', '.join(known)}.{did_you_mean(value, known)}")
