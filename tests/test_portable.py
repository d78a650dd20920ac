"""Paths and commands in files that are handed on: without the home, and still of use."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from sparse_xp.portable import portable_command, portable_path

HOME = "/home/alice"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{HOME}/runs/dense", "../dense"),
        (f"{HOME}/runs/sweep/dense/model", "../sweep/dense/model"),
        (f"{HOME}/runs/mine/model", "model"),
        (f"{HOME}/runs/mine", "mine"),
        (f"{HOME}/other/dense", "dense"),
        (f"{HOME}/other/dense/", "dense"),
        (f"{HOME}/other/dense/model", "dense/model"),
        (f"{HOME}/runs2/dense", "dense"),
        (f"{HOME}/runs/../secret", "secret"),
        ("~/secret", "secret"),
        ("~", "alice"),
        ("/", ""),
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("outputs/gone", "outputs/gone"),
        ("self", "self"),
    ],
)
def test_a_path_is_told_without_the_home(path, expected, monkeypatch):
    monkeypatch.setenv("HOME", HOME)
    assert portable_path(path, Path(f"{HOME}/runs/mine")) == expected
    assert portable_path(expected) == expected or "/" in expected


def test_a_path_that_is_there_is_told_from_the_run(tmp_path):
    for name in ("outputs/dense", "outputs/mine", "models/bert"):
        Path(name).mkdir(parents=True)
    assert portable_path("outputs/dense", Path("outputs/mine")) == "../dense"
    assert portable_path("models/bert", Path("outputs/mine")) == "bert"
    assert portable_path("models/bert") == "bert"
    assert portable_path(str(tmp_path / "outputs/dense"), Path("outputs/mine")) == "../dense"


def test_a_home_behind_a_link(tmp_path):
    (tmp_path / "disk/alice/runs/dense").mkdir(parents=True)
    (tmp_path / "alice").symlink_to(tmp_path / "disk/alice")
    for one, other in (("alice", "disk/alice"), ("disk/alice", "alice")):
        assert portable_path(str(tmp_path / one / "runs/dense"), tmp_path / other / "runs/mine") == "../dense"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.root={home}/data"], ["data.root=data"]),
        (["data.root={here}/data/x"], ["data.root=data/x"]),
        (["hydra.run.dir={home}/runs/mine"], ["hydra.run.dir=mine"]),
        (["hydra.run.dir={here}/outputs/mine"], ["hydra.run.dir=outputs/mine"]),
        (["teacher.path='{home}/runs/dense,seed=1'"], ["teacher.path='../dense,seed=1'"]),
        ([r"teacher.path='{home}/it\'s'"], [r"teacher.path='it\'s'"]),
        (["--config-dir", "{home}/own", "task=own"], ["--config-dir", "own", "task=own"]),
        (["--config-dir={home}/own"], ["--config-dir=own"]),
        (["hydra.searchpath=[file://{home}/own]"], ["hydra.searchpath=[file://own]"]),
        (["teacher.overrides=['data.root={home}/data','seed=1']"], ["teacher.overrides=['data.root=data','seed=1']"]),
        (["data.train=~/rows.csv"], ["data.train=rows.csv"]),
        (["model.checkpoint=google-bert/bert-base-uncased"], ["model.checkpoint=google-bert/bert-base-uncased"]),
        (["data.train=rows of mine.csv", "-m"], ["data.train=rows of mine.csv", "-m"]),
        (["recipe.args={{a: 1, b: '1/2'}}", "seed=1"], ["recipe.args={{a: 1, b: '1/2'}}", "seed=1"]),
    ],
)
def test_a_command_is_told_so_that_it_still_runs_where_it_was_issued(words, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", HOME)
    places = {"home": HOME, "here": tmp_path}
    command = shlex.join(["python", "-m", "sparse_xp", *(word.format(**places) for word in words)])
    after = portable_command(command, Path(f"{HOME}/runs/mine"))
    assert shlex.split(after)[3:] == [word.format() for word in expected]
    assert portable_command(after, Path(f"{HOME}/runs/mine")) == after


def test_a_command_that_is_no_command_line_stays():
    assert portable_command("it's", Path()) == "it's"
