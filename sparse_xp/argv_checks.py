"""Check the command line of a run before Hydra reads it, and say what to write instead."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from pathlib import Path

from sparse_xp.errors import MAX_LENGTH, did_you_mean
from sparse_xp.places import GROUPS


def unknown_config_name(argv: list[str]) -> str | None:
    """Return the message for a ``--config-name`` that is not a file in ``--config-dir``; None if it is one."""
    options = dict(pairwise(argv))
    options |= dict(argument.split("=", 1) for argument in argv if argument.startswith("--config-") and "=" in argument)
    name = options.get("--config-name", options.get("-cn"))
    folder = options.get("--config-dir", options.get("-cd"))
    names = sorted(path.stem for path in Path(folder or ".").glob("*.yaml"))
    if not (name and folder) or name.removesuffix(".yaml") in (*names, "config"):
        return None
    known = f" There are: {', '.join(names)}." if names else ""
    return f"--config-name {name}: there is no {folder}/{name}.yaml.{did_you_mean(name, names)}{known}"


def find_malformed_argument(argv: list[str]) -> str | None:
    """Return what to write instead of ``--task=squad``, ``--task squad`` or ``task squad``; None if all is well.

    Also refuse arguments with bytes or control characters that no YAML file of a run can hold.
    """
    for argument in argv:
        if any("\ud800" <= char <= "\udfff" for char in argument):
            return f"{argument}: it has bytes that are not UTF-8. Give the file another name."
        if any(unicodedata.category(char) == "Cc" and char not in "\t\n\r" for char in argument):
            return f"{argument}: it has control characters. Give the file another name."
        if argument.startswith("-") and (len(argument) > MAX_LENGTH or not argument.isprintable()):
            return f"{argument}: unknown option."
    for argument, before, after in zip(argv, ["", *argv], [*argv[1:], ""], strict=False):
        key, equals, value = argument.lstrip("-").partition("=")
        value = value if equals else after if after and "=" not in after else "VALUE"
        if key.split(".")[0] not in (*GROUPS, "seed", "data", "export"):
            continue
        if argument.startswith("--"):
            return f"{argument}: values are given without dashes: {key}={value}"
        if not equals and not before.startswith(("--", "-c", "-p")):  # the options of Hydra that take a value
            return f"{argument}: expected KEY=VALUE, as in {key}={value}."
    return None
