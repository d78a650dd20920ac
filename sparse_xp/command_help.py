"""The texts that ``python -m sparse_xp`` prints without arguments and with ``--help``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore

from sparse_xp.argv_checks import GROUPS


def welcome_text(conf: Path) -> str:
    """Return the text for a command without arguments: a first command to try, and the options of each group."""
    width = max(map(len, GROUPS))
    options = "\n".join(
        f"  {group:<{width}}  {' '.join(sorted(path.stem for path in (conf / group).glob('*.yaml')))}"
        for group in GROUPS
    )
    return f"""sparse_xp: sparse, distilled, deployable BERT-class encoders.

Try first (a minute, nothing is fetched):
  python -m sparse_xp task=squad recipe=pruned80 profile=embedded

Choose one of each with GROUP=OPTION:
{options}

Change any number with KEY=VALUE (train.epochs=4 recipe.sparsity=0.9), sweep with -m and commas (recipe=dense,pruned80).
`--cfg job` prints the configuration a command would run with, `--help` all groups; README.md has the rest."""


def help_text(conf: Path) -> str:
    """Return the text of ``--help``.

    Hydra prints the same text slowly: it copies every schema for every group to list its options.
    """
    options: dict[str, list[str]] = {}
    for path in sorted(conf.glob("*/*.yaml")):
        options.setdefault(path.parent.name, []).append(path.stem)
    for group, names in _stored_options(ConfigStore.instance().repo):
        options.setdefault(group, []).extend(names)
    listed = "\n".join(f"{group}: {', '.join(options[group])}" for group in sorted(options) if "hydra" not in group)
    template = yaml.safe_load((conf / "config.yaml").read_text(encoding="utf-8"))["hydra"]["help"]["template"]
    return str(template).replace("$APP_CONFIG_GROUPS", f"{listed}\n")


def _stored_options(repo: dict[str, Any], group: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield the groups of the ConfigStore with the names of their options."""
    for name, child in repo.items():
        if isinstance(child, dict):
            inner = f"{group}/{name}".strip("/")
            if names := sorted(key.removesuffix(".yaml") for key, node in child.items() if not isinstance(node, dict)):
                yield inner, names
            yield from _stored_options(child, inner)
