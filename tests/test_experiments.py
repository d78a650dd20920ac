"""Experiments, debug runs and the settings of a machine: what they choose, and that a command comes first."""

from __future__ import annotations

import os

import pytest

from sparse_xp.configuration import group_options
from sparse_xp.training.profiling import TABLE, TRACE
from tests.in_process import command_of
from tests.runs import configure, without_export


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return command_of(monkeypatch, capsys)


def test_an_experiment_chooses_options_and_sets_keys():
    config = configure("experiment=sentiment80")
    assert (config.task.name, config.recipe.name, config.train.epochs) == ("sst2", "gradual80", 3)
    assert config.sparsity.final_sparsity == 0.8
    config = configure("experiment=sentiment80", "recipe=pruned80", "train.epochs=1", "profile=embedded")
    assert (config.recipe.name, config.train.epochs, config.model.name) == ("pruned80", 1, "tiny")


@pytest.mark.parametrize("name", [each.name for each in group_options("experiment")])
def test_every_experiment_composes(name):
    configure(f"experiment={name}")
    configure(f"experiment={name}", "profile=embedded", "debug=step")


def test_an_experiment_and_the_settings_of_a_person_come_from_a_directory_of_theirs(command, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "quick.yaml").write_text("# @package _global_\ntrain: {epochs: 0.5}\n")
    (tmp_path / "mine" / "local").mkdir()
    (tmp_path / "mine" / "local" / "default.yaml").write_text("# @package _global_\nlog: {project: ours}\n")
    answer = command("--config-dir", "mine", "experiment=quick", "--cfg", "job")
    assert "  epochs: 0.5\n" in answer.out
    assert "  project: ours\n" in answer.out
    assert "Did you mean 'sentiment80'" in command("experiment=sentimnt80").message


def test_the_dense_run_of_an_experiment_has_its_task_and_is_as_short(command, tmp_path):
    with without_export():
        answer = command("experiment=sentiment80", "profile=embedded", "debug=step", "data.embedded_train_rows=64")
    assert answer.code == 0, answer.message
    dense, student = sorted(os.listdir(tmp_path / "outputs"), key=lambda name: "dense" not in name)[:2]
    assert dense.startswith("sst2,tiny,dense,embedded")
    assert student.startswith("sst2,tiny,gradual80,embedded")
    assert "step 1/1" in answer.out


def test_profile_leaves_a_table_and_a_trace(command, tmp_path):
    with without_export():
        answer = command("task=sst2", "profile=embedded", "debug=profile", "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    assert "aten::" in (tmp_path / "run" / TABLE).read_text()
    assert (tmp_path / "run" / TRACE).stat().st_size > 1000
