"""The command line of every ``python -m sparse_xp.COMMAND``: reading ``KEY=VALUE``, printing help, reporting errors.

A command module has a ``main(argv)`` that raises UserError, and ends with ``run_command(main, __doc__)``. Commands with
dashed options (``sparse_xp.recipe``, ``sparse_xp.report``) read ``argv`` by a ``Parser``, the others by
``parse_key_values``. ``python -m sparse_xp`` itself hands ``argv`` to Hydra and uses ``run_command`` as well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Collection
from typing import NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from sparse_xp.error_report import report_errors, wants_traceback
from sparse_xp.errors import UserError, did_you_mean, shortened


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that shortens its error messages, whatever was typed."""

    def error(self, message: str) -> NoReturn:
        super().error(shortened(message))


def run_command(
    main: Callable[[list[str]], None], help_text: str | None = None, *, needs_arguments: bool = True, hint: bool = False
) -> None:
    """Run ``main`` with the arguments of the command line; end the process with one short message for a UserError.

    The environment variable ``HYDRA_FULL_ERROR=1`` shows the traceback instead.

    ``help_text``: printed for ``-h`` and ``--help``, and without arguments where the command ``needs_arguments``; None
    if ``main`` prints its own help. ``hint``: add a line to the message that mentions ``HYDRA_FULL_ERROR``.
    """
    argv = sys.argv[1:]
    if help_text is not None and (argv[:1] in (["-h"], ["--help"]) or (needs_arguments and not argv)):
        print(help_text)
        return
    # Read before main runs: `python -m sparse_xp` sets the variable for Hydra.
    with report_errors(wants_traceback(), hint):
        main(argv)


def parse_key_values(argv: list[str], known: Collection[str] = ()) -> dict[str, str]:
    """Return the values by key.

    ``known``: the keys that the command has; empty if it checks them itself. Raises UserError for an argument without
    ``=``, and for an unknown key.
    """
    values: dict[str, str] = {}
    for argument in argv:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"{argument}: expected KEY=VALUE.{did_you_mean(argument, known)}")
        if known:
            check_key(key, known)
        values[key] = value
    return values


def check_key(key: str, known: Collection[str]) -> None:
    """Raise UserError for a key that is not ``known``; the message names the nearest one."""
    if key not in known:
        raise UserError(f"Unknown option '{key}='.{did_you_mean(key, known)} Options: {', '.join(known)}.")


def require_keys(values: dict[str, str], *keys: str) -> None:
    """Raise UserError for the first of ``keys`` that ``values`` lacks."""
    for key in keys:
        if key not in values:
            raise UserError(f"{key}= is missing.")


def positive_integer(key: str, value: str) -> int:
    """Return ``value`` as an integer. Raises UserError, which names ``key``, unless it is at least 1."""
    if not value.strip().isdecimal() or int(value) < 1:
        raise UserError(f"{key}={value}: expected a whole number of at least 1.")
    return int(value)


def parse_list(value: str) -> list[str]:
    """Return the items of ``[a,b]`` or ``a,b``."""
    return [item.strip() for item in value.strip().removeprefix("[").removesuffix("]").split(",") if item.strip()]


def quote_paths(argv: list[str]) -> list[str]:
    """Quote the values that are paths with characters of Hydra's grammar, such as ``,`` and ``=``.

    Run directories have such names (``squad,tiny,seed=42``) and are passed to ``teacher.path=`` and the like. Hydra
    would read them as a sweep, or not at all. Neither does it read a ``~/``, which shells expand only where a word
    begins; it is expanded here. Separators of columns are quoted too, stubs of the zoo, and names of classes that Hydra
    would write in another way (``1_1`` as 11, ``true`` as True). Objects in JSON (``recipe.args={"epochs": 8}``) are
    written as Hydra reads them.
    """
    return [_quote_path(argument) for argument in argv]


def _quote_path(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if key == "task.classes" and (items := re.fullmatch(r"\[([^\[\]'\"\\(){}]*)\]", value)):
        return f"{key}=[{','.join(map(_quote_class, items[1].split(',')))}]"
    if key == "data.separator" and value in (",", ";", "\t", ":", "=", "~", "#"):
        return f"{key}='{value}'"
    if value.startswith("{") and ('"' in value or "'" in value):
        return f"{key}={_objects_for_hydra(key, value)}"
    if value.startswith("~/"):
        value = os.path.expanduser(value)
        argument = f"{key}={value}"
    plain = re.fullmatch(r"[\w./~+%:-]*", value)
    # hydra.run.dir= may name a directory that is still to be made.
    named = os.path.exists(value) or value.startswith("zoo:")
    if not equals or plain or not (named or (key == "hydra.run.dir" and value[:1] not in "'\"")):
        return argument
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def _objects_for_hydra(key: str, value: str) -> str:
    """Return one or several objects in JSON, with commas between them, in Hydra's grammar; others unchanged.

    Raises UserError for a value that neither of the two can read.
    """
    written, rest = [], value
    try:
        while rest:
            content, end = json.JSONDecoder().raw_decode(rest)
            written.append(_for_hydra(content))
            rest = rest[end:].strip()
            if rest and not rest.startswith(","):
                raise json.JSONDecodeError("Expecting ',' delimiter", value, len(value) - len(rest))
            rest = rest[1:].strip()
    except (ValueError, RecursionError) as error:
        try:
            OverridesParser.create().parse_override(f"{key}={value}")
        except (HydraException, RecursionError):
            where = f": {error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
            raise UserError(
                f"{key}={shortened(value, 200)}: this is no JSON{where}. Write "
                f"{key}='{{\"NAME\": VALUE, ...}}' or {key}='{{NAME: VALUE, ...}}'."
            ) from error
        return value
    return ",".join(written)


def _for_hydra(content: object) -> str:
    """Return a value of JSON in Hydra's grammar. Raises UserError for a name that it cannot have."""
    if isinstance(content, dict):
        for name in content:
            if not re.fullmatch(r"[A-Za-z_][\w-]*", name, re.ASCII):
                raise UserError(f"{shortened(name, 100)!r}: a name consists of letters, digits and _.")
        return "{" + ",".join(f"{name}:{_for_hydra(each)}" for name, each in content.items()) + "}"
    if isinstance(content, list):
        return "[" + ",".join(map(_for_hydra, content)) + "]"
    if isinstance(content, str):
        return QuotedString(content, Quote.single).with_quotes()
    return json.dumps(content)


def _quote_class(item: str) -> str:
    """Quote the name of a class that Hydra would read as a number or a truth value, and write in another way."""
    name = item.strip()
    odd = name.lower() in ("true", "false", "null", "nan", "inf") or re.fullmatch(
        r"[+-]?[\d_.]*\d[\d_.]*(e[+-]?\d+)?", name, re.I
    )
    return f"'{name}'" if odd and not re.fullmatch(r"0|-?[1-9]\d*", name) else item
