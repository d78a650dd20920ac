"""Check the configuration files of the user (``--config-dir``) before Hydra reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sparse_xp.choices import overrides_in
from sparse_xp.recipe.loader import read_mapping


def check_config_files(argv: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise UserError for a file of the user that ``argv`` names and that is too large or not a YAML mapping.

    Files that those files name are checked by Hydra.
    """
    names = [value for before, value in zip(["", *argv], argv, strict=False) if before in ("--config-name", "-cn")]
    names += [argument.partition("=")[2] for argument in argv if argument.startswith(("--config-name=", "-cn="))]
    for argument in overrides_in(argv):
        key, equals, value = argument.lstrip("+").partition("=")
        if equals and len(value) < 1000:
            names += [f"{key.partition('@')[0]}/{each.strip()}" for each in value.split(",")]
    for folder in folders:
        for name in names:
            path = folder / (name if name.endswith(".yaml") else f"{name}.yaml")
            try:
                exists = os.path.lexists(path)
            except ValueError:
                continue
            if exists and len(name) < 255:
                read_mapping(path)
