"""``python -m sparse_xp.export``: the command of ``export_command``. Imported, it is the function ``sparse_xp.export``.

A module that is imported becomes an attribute of its package. Here the function takes the module's place, so that
``import sparse_xp.export`` does not hide it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, cast

if __name__ == "__main__":
    from sparse_xp import export_command
    from sparse_xp.cli import run_command

    run_command(export_command.main, export_command.__doc__, hint=True)
else:
    from sparse_xp.deploy_model import export

    function = cast(Any, export)
    function.__spec__ = __spec__  # by which importlib and runpy find the file of the command
    function.export = export  # of ``from sparse_xp.export import export``
    sys.modules[__name__] = cast(ModuleType, export)
