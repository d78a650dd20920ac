"""Every command that README, CONTRIBUTING and the headers of recipes, sweeps and tasks show composes."""

from __future__ import annotations

import pytest

from sparse_xp.places import CONF
from tests.runs import configure
from tests.shown_commands import commands, points

ROOT = CONF.parent
TEXTS = [
    *(path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()),
    *sorted(CONF.rglob("*.yaml")),
    *sorted((ROOT / "sweeps").glob("*.yaml")),
]
SHOWN = [
    pytest.param(words, id=f"{path.relative_to(ROOT)}: {words}")
    for path in TEXTS
    for words in dict.fromkeys(commands(path.read_text(encoding="utf-8")))
    # Their directory is the reader's own, or sweeps/; test_config.py composes from such directories.
    if "--config-dir" not in words and "hydra.searchpath" not in words
]


def test_commands_finds_what_it_should():
    text = """
    python -m sparse_xp task=squad \\
        recipe=dense
#   python -m sparse_xp recipe=dense
$ CUDA_VISIBLE_DEVICES=0 .venv/bin/python -m sparse_xp -m recipe=dense,pruned80
`python -m sparse_xp` alone, python -m sparse_xp.report outputs and text python -m sparse_xp is not shown
"""
    assert commands(text) == ["task=squad recipe=dense", "recipe=dense", "-m recipe=dense,pruned80"]
    assert points("-m recipe=dense,pruned80 seed=1  # two runs") == [
        ["recipe=dense", "seed=1"],
        ["recipe=pruned80", "seed=1"],
    ]


def test_every_recipe_shows_its_command():
    for path in sorted((CONF / "recipe").glob("*.yaml")):
        assert any(f"recipe={path.stem}" in words.split() for words in commands(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize("line", SHOWN)
def test_shown_command_composes(line):
    for overrides in points(line):
        configure(*overrides)


def test_every_sweep_shows_its_command():
    for path in sorted((ROOT / "sweeps").glob("*.yaml")):
        shown = commands(path.read_text(encoding="utf-8"))
        assert f"--multirun --config-dir sweeps --config-name {path.stem}" in shown, path
