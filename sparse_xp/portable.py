"""Write paths and commands so that others can read them: without the directories of somebody's home.

``result.json``, model cards and tables are handed on. A path in them is relative to the run where that is possible, and
otherwise only its last part.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

#: an absolute path inside a list, a quoted word or an address
_INNER_PATH = re.compile(r"""(?:(?<=[\[,'"({=])|(?<=file://)|(?<=: ))(?:~|/)[^\s,'"\[\](){}]*""")


def portable_path(path: str, directory: Path | None = None) -> str:
    """Return a path as others may read it.

    A path that is relative and does not exist is returned as it is: it may be the id of a repository on the hub. A path
    next to the run in ``directory``, or below such a path, becomes relative to the run (``../dense``). Of every other
    path only the last part is left.
    """
    expanded = os.path.expanduser(path)
    if not (os.path.isabs(expanded) or path.startswith("~") or os.path.lexists(expanded)):
        return path
    if directory is not None:
        for resolve in (os.path.abspath, os.path.realpath):  # a home may be a link
            run, target = resolve(directory), resolve(expanded)
            if target == run:
                break
            if Path(target).is_relative_to(Path(run).parent):
                return os.path.relpath(target, run)
    parts = Path(os.path.abspath(expanded)).parts[1:]
    # Every run has a directory named "model", so the name of the run goes with it.
    return "/".join(parts[-2:] if parts[-1:] == ("model",) else parts[-1:])


def portable_command(command: str, directory: Path | None = None) -> str:
    """Return a command with its absolute paths as ``portable_path`` has them.

    Paths below the current directory become relative to it, so that the command still runs from there. What is not
    absolute stays as it was typed. ``directory``: that of the run.
    """
    try:
        words = shlex.split(command)
    except ValueError:  # an unbalanced quote: no command line
        return command
    return shlex.join(_portable_word(word, directory) for word in words)


def _portable_word(word: str, directory: Path | None) -> str:
    """Return one word of a command, a path or ``KEY=VALUE``, with its absolute paths replaced."""

    def replaced(path: str) -> str:
        for resolve in (os.path.abspath, os.path.realpath):
            current, target = resolve("."), resolve(os.path.expanduser(path))
            if Path(target).is_relative_to(current):
                return os.path.relpath(target, current)
        return portable_path(path, directory)

    key, equals, value = word.partition("=") if word[:1] not in ("/", "~") or "=~" in word else ("", "", word)
    if value[:1] in ("/", "~"):
        return f"{key}{equals}{replaced(value)}"
    if len(value) > 1 and value[0] == value[-1] == "'" and value[1:2] in ("/", "~"):  # as Hydra quotes it
        unescaped = re.sub(r"\\(.)", r"\1", value[1:-1])
        escaped = replaced(unescaped).replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}{equals}'{escaped}'"
    return f"{key}{equals}{_INNER_PATH.sub(lambda match: replaced(match[0]), value)}" if equals else word
