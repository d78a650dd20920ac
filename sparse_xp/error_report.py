"""Report errors that the user can correct as one short message: ours, those of Hydra, OmegaConf and the system.

``cli.run_command`` runs every command within ``report_errors``.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import yaml
from hydra.errors import CompactHydraException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
)

from sparse_xp.errors import did_you_mean, shortened
from sparse_xp.renamed_keys import NEW_NAMES, RETIRED_TASK_FIELDS, new_name

#: the libraries that read and compose what the user has written, before our code sees it
COMPOSERS = ("hydra", "omegaconf", "yaml", "antlr4")
#: error numbers of a disk that is full, or full for this user
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def report_errors(traceback: bool, hint: bool = False) -> Iterator[None]:
    """End the process with one short message for an error of the block that the user can correct.

    ``traceback``: raise the error instead. ``hint``: add a line on how to see the traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may have bytes that are not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except KeyboardInterrupt:
        if traceback:
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except Exception as error:
        if traceback or not is_users_error(error):
            raise
        sys.exit(shortened(describe_error(error)) + "\n(HYDRA_FULL_ERROR=1 shows where it happened.)" * hint)


def is_users_error(error: BaseException) -> bool:
    """Return whether the user can correct an error: ours, one of Hydra, or one of the system about a file."""
    if isinstance(error, CompactHydraException | OmegaConfBaseException | yaml.YAMLError) or is_composition_error(
        error
    ):
        return True
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return True
    return isinstance(error, OSError) and error.filename is not None and error.strerror is not None


def is_composition_error(error: BaseException) -> bool:
    """Return whether an error was raised by Hydra while it composed a configuration of the user's overrides and files.

    For most mistakes Hydra has an error of its own; for others (null in place of an option, a list in place of a
    mapping) it lets through whatever Python raised. Errors raised inside ``main`` of ``sparse_xp.main`` belong to
    the run, not to composition.
    """
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append((str(trace.tb_frame.f_globals.get("__name__")), code.co_name, code.co_filename))
        trace = trace.tb_next
    if any(name == "main" and file == str(Path(__file__).parent / "main.py") for _, name, file in frames):
        return False
    ours = [module.split(".")[0] for module, *_ in frames]
    ours = [module for module in ours if module in (*COMPOSERS, "sparse_xp", "hydra_plugins")]
    return "hydra" in ours and ours[-1] in COMPOSERS


def raising_function(error: BaseException) -> str:
    """Return the name of the function that raised an error, with its module."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__')}.{trace.tb_frame.f_code.co_name}" if trace else "nobody"


def describe_error(error: BaseException) -> str:
    """Return the message for an error; for a wrong name it suggests the nearest right one."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = ", ".join(error.options)
        return f"{group}={name}: there is no such {group}.{did_you_mean(name, error.options)} There are: {options}."
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: {error.problem}."
    if isinstance(error, OSError) and (error.filename is not None or error.errno in DISK_FULL):
        return describe_os_error(error)
    return describe_composition_error(error)


def describe_os_error(error: OSError) -> str:
    """Return the message for an error about a file, or for a full disk."""
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {(error.strerror or '').lower()}.{_permission_advice(error)}"
    return "No space left on the disk that this command writes its output to."


def describe_composition_error(error: BaseException) -> str:
    """Return the message for an error raised while the configuration was composed, or the text of any other error."""
    if _overrides_empty_group(error):
        return _empty_group_message(sys.argv[1:])
    if message := _two_options_message(error, sys.argv[1:]):
        return message
    if message := _unreadable_override_message(error) or _prefix_message(str(error)):
        return message
    # Hydra chains the error for a word of the command line, and only quotes the one for a line of a file.
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or error.__context__
    if not isinstance(cause, OmegaConfBaseException):
        if isinstance(error, CompactHydraException | HydraException):
            return str(error)
        first_line = str(error).partition("\n")[0] or f"refused by {raising_function(error)}"
        return f"The configuration cannot be composed of these words and files: {type(error).__name__}: {first_line}"
    return describe_key_error(cause)


def describe_key_error(error: OmegaConfBaseException) -> str:
    """Return the message for a key that OmegaConf does not know, or for a value that it does not accept there."""
    first_line = (error.msg or str(error)).splitlines()[0]
    if isinstance(error, InterpolationKeyError | InterpolationResolutionError | InterpolationToMissingValueError):
        return (
            f"{error.full_key or error.key}: {first_line.removeprefix('MissingMandatoryValue while resolving ')}"
            + _renamed_advice(first_line)
        )
    parent, key = error.parent_node, str(error.key)
    where = error.full_key or key
    known = [str(name) for name in parent.keys()] if isinstance(parent, DictConfig) else [key]  # noqa: SIM118
    if key not in known and error.key is not None:
        return unknown_key_message(where, key, known)
    if first_line.endswith("is not Optional"):
        return f"{where} cannot be empty.{_describe_field(parent, key)}"
    if first_line.endswith("does not support deletion"):
        return f"{where} cannot be left out.{_describe_field(parent, key)}"
    if whole := re.match(r"Value '(.*)' of type '\w+' could not be converted to Integer", first_line):
        return f"{where}: expected a whole number, not {whole[1]}."
    percent = re.match(r"Value '(\d+(?:\.\d+)?)%'.* could not be converted to Float", first_line)
    return f"{where}: {first_line}" + (f". Write {float(percent[1]) / 100:g}." if percent else "")


def _describe_field(parent: object, key: str) -> str:
    """Return the type and default of a key of the schema, as a sentence."""
    kind = OmegaConf.get_type(parent) if isinstance(parent, DictConfig) else None
    found = {each.name: each for each in fields(kind)} if is_dataclass(kind) else {}
    if key not in found:
        return " Give it a value."
    default, kinds = found[key].default, {"int": "a whole number", "float": "a number", "bool": "true or false"}
    by_itself = "" if default in (MISSING, "???", None, "") else f", {default} by default"
    return f" It takes {kinds.get(str(found[key].type), 'a value')}{by_itself}."


def _permission_advice(error: OSError) -> str:
    """Return advice about a path without permission, and an empty string for other errors."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            " Name a place that you may read and write: hydra.run.dir= of a run (hydra.sweep.dir= of a sweep), "
            "data.cache= of the cache, out= otherwise."
        )
    return ""


def _renamed_advice(message: str) -> str:
    """Return the new name of a key that a failed interpolation names, as a sentence; an empty string for others."""
    match = re.search(r"Interpolation key '([\w.]+)'", message)
    parts = match[1].split(".") if match else []
    if parts[:1] == ["task"] and set(parts) & set(RETIRED_TASK_FIELDS):
        return f". Write ${{hyperparameters:{','.join(parts[1:])}}} (conf/hyperparameters.yaml)."
    return f". It is called {NEW_NAMES[parts[-1]]} now." if parts and parts[-1] in NEW_NAMES else ""


def unknown_key_message(where: str, key: str, known: list[str]) -> str:
    """Return the message for a key that is not among the ``known`` keys beside it."""
    if new := new_name(key, known):
        return f"Unknown key '{where}': it is called '{where.removesuffix(key)}{new}' now."
    if key in RETIRED_TASK_FIELDS and where == f"task.{key}":
        return (
            f"Unknown key '{where}': the numbers of recipes are in conf/hyperparameters.yaml now. Write train.*, seed= "
            "or teacher.distillation.* on the command line, or in a recipe of your own."
        )
    return f"Unknown key '{where}'.{did_you_mean(key, known)} The keys there: {', '.join(known) or 'none'}."


def _unreadable_override_message(error: BaseException) -> str | None:
    """Return the message for an override that does not follow Hydra's grammar; None for another error."""
    if not isinstance(error, OverrideParseException):
        return None
    key, _, value = error.override.partition("=")
    reason = str(error).partition("\n")[0].rpartition("Exception: ")[2]
    quotes = f" Put quotes around a value with commas, blanks, '=', brackets or quotes: {key}=\"'VALUE'\"."
    if "/" in value and not value.startswith(("[", "{")):
        return f"{error.override}: there is no such file or directory, and as a text it cannot be read.{quotes}"
    return f"{error.override}: it cannot be read ({reason}).{quotes}"


def _prefix_message(text: str) -> str | None:
    """Return the message for a ``+`` before a key that exists, and for a recipe without its package; else None."""
    if match := re.match(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"{match[1]} exists already. Write it without the +: {match[1]}=VALUE."
    if match := re.match(r"Could not override '(\w+)@[\w.]+'", text):
        return (
            f"A file of yours overrides the group {match[1]} from within a group. A recipe, experiment or profile "
            "begins with the line `# @package _global_`."
        )
    return None


def _two_options_message(error: BaseException, argv: list[str]) -> str | None:
    """Return the message for a key that the file of one option sets and that the option of another group lacks.

    ``recipe=obert80 sparsity=gradual``: nobody typed ``sparsity.num_grads``, which the file of the recipe sets.
    """
    cause, file = error.__cause__ or error.__context__, re.match(r"In '(\w+)/(\w+)'", str(error))
    if not (isinstance(cause, ConfigKeyError) and file and cause.full_key):
        return None
    key = str(cause.full_key)
    setter, option = (_chosen(argv, group) for group in (file[1], key.split(".")[0]))
    if option is None or file[1] == key.split(".")[0] or any(word.lstrip("+").startswith(f"{key}=") for word in argv):
        return None
    setter = setter or f"{file[1]}={file[2]}"
    return f"{setter} sets {key}, and {option} has no such key: the two do not go together. Leave one of them out."


def _empty_group_message(argv: list[str]) -> str:
    """Return the message for a key of a group that is none."""
    for group in ("sparsity", "quantization", "teacher.distillation"):
        option = _chosen(argv, group)
        if option and not any(word.lstrip("+").startswith(f"{group}.") for word in argv):
            setter = _chosen(argv, "recipe") or "The recipe"
            return f"{setter} sets keys of {group}, and {option} leaves none to set. Leave one of the two out."
    return (
        "A value is given for sparsity or quantization, but that group is none: choose an option of it first "
        "(sparsity=gradual, say)."
    )


def _chosen(argv: list[str], group: str) -> str | None:
    """Return the last word that chose an option of ``group``, None if none did."""
    return next((word for word in reversed(argv) if word.startswith(f"{group}=")), None)


def _overrides_empty_group(error: BaseException) -> bool:
    """Return whether this is how OmegaConf reports ``sparsity.params=...`` under ``sparsity=none``."""
    return isinstance(error, AssertionError) and str(error) == "Unexpected type for root: NoneType"


def wants_traceback() -> bool:
    """Return whether ``HYDRA_FULL_ERROR`` asks for tracebacks."""
    return os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
