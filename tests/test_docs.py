"""Commands that README, CONTRIBUTING, recipes, sweeps and tasks show compose; the Python of the docs imports."""

from __future__ import annotations

import ast
import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from sparse_xp.places import CONF
from sparse_xp.synthetic.model import build_checkpoint, vocabulary
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

PYTHON = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.exists()
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S))
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


@pytest.mark.parametrize("block", PYTHON)
def test_shown_python_imports_what_exists(block):
    tree = ast.parse(block)
    tree.body = [statement for statement in tree.body if isinstance(statement, ast.Import | ast.ImportFrom)]
    exec(compile(tree, "docs", "exec"), {})  # noqa: S102


def test_the_python_of_sweeps_prunes_a_checkpoint(tmp_path, monkeypatch):
    (block,) = (param.values[0] for param in PYTHON if param.id == "sweeps.md-0")
    build_checkpoint(tmp_path / "dense", vocabulary(["good film"]))
    monkeypatch.setenv("MINILM", str(tmp_path / "dense"))
    monkeypatch.setenv("MINILM80", str(tmp_path / "pruned"))
    exec(block, {})  # noqa: S102
    weights = load_file(tmp_path / "pruned" / "model.safetensors")
    matrix = next(value for name, value in weights.items() if name.endswith("layer.0.intermediate.dense.weight"))
    assert np.mean(matrix == 0) == pytest.approx(0.8, abs=1e-3)
