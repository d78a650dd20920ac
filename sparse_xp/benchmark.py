"""``python -m sparse_xp.benchmark``: the command of ``benchmark_command``. Imported, it is ``sparse_xp.benchmark``.

The function takes the place of the module, as in ``export``.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, cast

if __name__ == "__main__":
    from sparse_xp import benchmark_command
    from sparse_xp.cli import run_command

    run_command(benchmark_command.main, benchmark_command.__doc__)
else:
    from sparse_xp.deployment.benchmark import benchmark

    function = cast(Any, benchmark)
    function.__spec__ = __spec__
    function.benchmark = benchmark
    sys.modules[__name__] = cast(ModuleType, benchmark)
