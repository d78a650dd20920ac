"""``python -m sparse_xp`` and ``sparse-xp``: the command. ``main`` has what it does.

What can be chosen and ``--help`` are answered at once: Hydra and all else are loaded for a run only.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

from sparse_xp.command_help import help_text, welcome_text
from sparse_xp.places import CONF


def cli() -> None:
    """Run the command; without arguments and for ``--help`` print what can be chosen."""
    argv = sys.argv[1:]
    if not argv:
        show(welcome_text(CONF))
    elif help_at := [place for place, word in enumerate(argv) if word in ("--help", "-h")]:
        text, found = help_text(argv[help_at[0] + 1 :])
        show(text, sys.stdout if found else sys.stderr)
        sys.exit(0 if found else 1)
    else:
        from sparse_xp.main import report_and_run

        report_and_run()


def show(text: str, stream: TextIO | None = None) -> None:
    """Print a text, by default to stdout. A reader that closes the pipe early, such as head, is no error."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    cli()
