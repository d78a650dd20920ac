"""``import sparse_xp``: its names, how little it loads, and what a type checker sees of it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module

import pytest

import sparse_xp
from sparse_xp.places import PACKAGE

#: prints what ``import sparse_xp`` has loaded, and what asking for its names has loaded
LOADED = """
import json, sys
import sparse_xp
first = sorted(sys.modules)
sparse_xp.export, sparse_xp.benchmark, sparse_xp.UserError
print(json.dumps([first, sorted(sys.modules)]))
"""
#: imports the files of the commands in every way, and prints what the names are then
HIDDEN = """
import importlib
import sparse_xp.export
import sparse_xp.benchmark as by_path
from sparse_xp import export, benchmark
importlib.import_module("sparse_xp.export")
import sparse_xp.export, sparse_xp.export_command, sparse_xp.benchmark_command
print(*(callable(each) for each in (sparse_xp.export, sparse_xp.benchmark, by_path, export, benchmark)))
print(sparse_xp.export is export, by_path is benchmark, export.__module__, benchmark.__module__)
from importlib.util import find_spec
from sparse_xp.export import export as again
from sparse_xp.benchmark import benchmark as also
print(again is export, also is benchmark, find_spec("sparse_xp.export").name, find_spec("sparse_xp.benchmark").name)
"""
#: what a user writes, and what mypy must find wrong in it
TYPED = """
import sparse_xp
from sparse_xp import measure

measured = sparse_xp.benchmark("deployment", lengths=[8, 16], out=None)
fastest: float = max(each.ratio for each in measured)
zeros: int = measure(object()).prunable.zeros
wrong: str = sparse_xp.benchmark("deployment", rounds="many")
"""


def python(source: str) -> str:
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_loads_nothing():
    first, named = json.loads(python(LOADED))
    heavy = {"torch", "transformers", "datasets", "onnxruntime", "onnx", "accelerate", "pyarrow"}
    assert not {"numpy", "hydra", "omegaconf", *heavy} & set(first)
    assert [name for name in first if name.startswith("sparse_xp.")] == []
    assert not heavy & set(named)


def test_functions_stay_functions_whatever_is_imported():
    assert python(HIDDEN).splitlines() == [
        "True True True True True",
        "True True sparse_xp.deploy_model sparse_xp.deployment.benchmark",
        "True True sparse_xp.export sparse_xp.benchmark",
    ]


@pytest.mark.parametrize("command", ["export", "benchmark"])
def test_the_commands_are_commands(command):
    done = subprocess.run([sys.executable, "-m", f"sparse_xp.{command}"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{import_module(f'sparse_xp.{command}_command').__doc__}\n"
    assert f"python -m sparse_xp.{command} run=" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", f"sparse_xp.{command}", "run=nowhere"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "nowhere holds no run" in done.stderr


def test_every_name_is_there_and_is_called_so():
    assert set(sparse_xp.__all__) <= set(dir(sparse_xp))
    for name in set(sparse_xp.__all__) - {"__version__"}:
        assert getattr(sparse_xp, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Pipelin'"):
        sparse_xp.Pipelin  # noqa: B018


def test_type_checkers_are_told_of_the_same_names():
    told = {}
    for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                # ``as`` makes the name one that the package gives on, by the rules of type checkers
                told |= {alias.asname: (line.module, alias.name) for alias in line.names}
    assert told == {name: (module, name) for name, module in sparse_xp._MODULES.items()}
    assert sorted(told) == sorted({*sparse_xp.__all__, "LightningCallback"} - {"__version__"})  # that needs an extra


@pytest.mark.slow
def test_a_type_checker_sees_the_signatures(tmp_path, monkeypatch):
    """It reads torch and transformers, which takes minutes."""
    api = pytest.importorskip("mypy.api")
    (tmp_path / "user.py").write_text(TYPED)
    monkeypatch.setenv("MYPYPATH", str(PACKAGE.parent))
    options = [
        "--strict",
        "--follow-imports=silent",
        "--ignore-missing-imports",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    told, errors, _ = api.run([*options, str(tmp_path / "user.py")])
    assert errors == ""
    wrong = [line.partition(": error: ")[2] for line in told.splitlines() if ": error: " in line]
    assert [line.split("  [")[0].replace('"', "") for line in wrong] == [
        "Argument 1 to measure has incompatible type object; expected Module",
        "Incompatible types in assignment (expression has type Measurements, variable has type str)",
        "Argument rounds to benchmark has incompatible type str; expected int",
    ]
