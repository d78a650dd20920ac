"""The file of a sweep, runs that take no time, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse_xp.identity import run_hash
from sparse_xp.run import write_config
from sparse_xp.run_directory import claim_run, find_finished, remove_temporary_files
from tests.in_process import command_of
from tests.sweep.cells import GRID, HEADER
from tests.tiny import make_result


@pytest.fixture
def grid(tmp_path):
    """The file of a sweep, and its published numbers."""

    def write(text=GRID, published=None):
        (tmp_path / "sweeps").mkdir(exist_ok=True)
        (tmp_path / "sweeps/mine.yaml").write_text(text)
        if published is not None:
            (tmp_path / "sweeps/mine.csv").write_text(HEADER + published)
        return ["--multirun", "--config-dir", "sweeps", "--config-name", "mine"]

    return write


@pytest.fixture
def made(monkeypatch):
    """Runs that take no time: what was asked for, by directory; ``made.broken`` are the recipes that fail."""

    class Made(dict):
        broken: tuple = ()

    calls = Made()
    calls.commands = {}

    def run(config, directory, command=None, show=True, splits=None):
        if config.recipe.name in calls.broken:
            raise RuntimeError(f"{config.recipe.name} is broken")
        config_hash = run_hash(directory, config)
        if finished := find_finished(directory, config_hash):
            remove_temporary_files(directory)
            return finished
        calls[Path(directory).name] = config
        calls.commands[Path(directory).name] = command
        claim_run(directory)
        write_config(config, directory, config_hash)
        names = {"task": config.task.name, "model": config.model.name, "recipe": config.recipe.name}
        result = make_result(**names, seed=config.seed, profile="embedded")
        result.provenance.command = command
        result.write(directory / "result.json")
        remove_temporary_files(directory)
        return result

    monkeypatch.setattr("sparse_xp.main.run", run)
    return calls


@pytest.fixture
def command(monkeypatch, capsys):
    """Exit code and all that is said."""

    call = command_of(monkeypatch, capsys)

    def run(*words):
        answer = call(*words)
        return answer.code, answer.out + answer.message

    return run
