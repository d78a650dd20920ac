"""Where the package and its configuration stand."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent

#: conf/ stands at the top of a checkout and inside the package of an installed wheel.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())

#: the groups that a command may choose from: the folders of conf/. Add a new one here; tests/test_choices.py compares.
GROUPS = (
    *("task", "model", "teacher", "sparsity", "quantization", "schedule", "recipe"),
    *("train", "log", "profile", "experiment", "debug"),
)
