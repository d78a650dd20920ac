"""Where the package and its configuration stand."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent

#: conf/ stands at the top of a checkout and inside the package of an installed wheel.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())
