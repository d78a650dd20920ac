"""The installed package finds its own conf/ from another directory, and what it and its extras ask for is pinned."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
COMPOSE = ["-m", "sparse_xp", "--cfg", "job", "profile=embedded", "recipe=gradual80"]
WHERE = "import sparse_xp.places as places; print(places.__file__, places.CONF)"


def run(*command: str | Path, **options: object) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    [path] = folder.glob("*.whl")
    return path


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.yaml")}


def test_the_wheel_holds_the_package_its_configuration_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name.removeprefix("sparse_xp/") for name in names if name.startswith("sparse_xp/")}
    old = {f"recipe/files/{path.name}" for path in (ROOT / "sparse_xp/recipe/files").iterdir()}
    assert {name for name in inside if name.endswith((".yaml", ".md"))} == old | files_below(
        ROOT / "conf"
    ) | files_below(ROOT / "sweeps")
    assert {name for name in inside if name.endswith(".csv")} == {f"sweeps/{p.name}" for p in ROOT.glob("sweeps/*.csv")}
    assert {"py.typed", "__main__.py", "metrics/squad/squad.py", "metrics/accuracy/accuracy.py"} <= inside
    assert {name.split("/")[0] for name in names if not name.startswith("sparse_xp/")} == {
        "hydra_plugins", *(name.split("/")[0] for name in names if ".dist-info/" in name)
    }  # fmt: skip


def test_the_installed_package_composes_from_another_directory(wheel, tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    run(*pip, "--target", site, wheel)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = {"cwd": elsewhere, "env": {"PYTHONPATH": str(site), "PATH": ""}}
    module, conf = run(sys.executable, "-c", WHERE, **options).split()
    assert Path(module) == site / "sparse_xp" / "places.py"
    assert Path(conf) == site / "sparse_xp" / "conf"
    composed = yaml.safe_load(run(sys.executable, *COMPOSE, **options))
    assert (composed["model"]["name"], composed["recipe"]["name"], composed["profile"]) == (
        "tiny",
        "gradual80",
        "embedded",
    )
    assert list(elsewhere.iterdir()) == []


@pytest.mark.slow
def test_an_empty_environment_with_nothing_but_the_wheel_composes(wheel, tmp_path):
    """Downloads the dependencies, in the tested versions."""
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "--constraint", ROOT / "constraints.txt", wheel)
    module, _ = run(python, "-c", WHERE, cwd=tmp_path).split()
    assert Path(module).is_relative_to(tmp_path / "venv")
    assert "name: gradual80" in run(python, *COMPOSE, cwd=tmp_path)
    script = tmp_path / "venv" / "bin" / "sparse-xp"
    assert "Choose one of each" in run(script, cwd=tmp_path)


def test_what_every_extra_asks_for_is_pinned_within_its_range():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(pinned) == len(lines)
    for text in itertools.chain(asked["dependencies"], *asked["optional-dependencies"].values()):
        wanted = Requirement(text)
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)], prereleases=True), text
