"""Sweeps: the grid, what is done of it, who teaches whom, failures, and the manifest."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import sparse_xp.run
from sparse_xp.__main__ import cli
from sparse_xp.errors import UserError
from sparse_xp.sweep import (
    Cell,
    Plan,
    changes,
    dense_cell,
    expand,
    last_line,
    read_manifest,
    state,
    waves,
    word,
    write_error,
    write_manifest,
)
from tests.tiny import make_result

#: two cells with names and two seeds of one task
GRID = """
defaults: [config, _self_]
hydra:
  mode: MULTIRUN
  sweep: {dir: outputs/mine}
  sweeper:
    params: {profile: embedded, log: none, task: sst2, seed: [1, 2]}
    cells:
      dense: {recipe: dense}
      sparse: {recipe: gradual80, recipe.sparsity: 0.7}
"""
HEADER = "task,cell,metric,published,std,n,tolerance,source,note\n"


def make_cell(**changes) -> Cell:
    fields = {
        "number": 0, "name": "dense", "words": ["task=sst2", "recipe=dense", "seed=1"], "directory": "d",
        "task": "sst2", "model": "tiny", "recipe": "dense", "profile": "embedded", "seed": 1, "epochs": 2.0,
        "max_train_samples": None,
        "config_hash": "0123456789", "command": "python -m sparse_xp task=sst2",
    }  # fmt: skip
    return Cell(**fields | changes)


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

    def run(config, directory, command=None):
        if config.recipe.name in calls.broken:
            raise RuntimeError(f"{config.recipe.name} is broken")
        config_hash = sparse_xp.run.result_hash(config)
        if finished := sparse_xp.run.find_finished(directory, config_hash):
            return finished
        calls[Path(directory).name] = config
        calls.commands[Path(directory).name] = command
        directory.mkdir(parents=True, exist_ok=True)
        sparse_xp.run.write_config(config, directory, config_hash)
        names = {"task": config.task.name, "model": config.model.name, "recipe": config.recipe.name}
        result = make_result(**names, seed=config.seed, profile="embedded")
        result.provenance.command = command
        result.write(directory / "result.json")
        return result

    monkeypatch.setattr(sparse_xp.run, "run", run)
    return calls


@pytest.fixture
def command(monkeypatch, capsys):
    """Exit code and all that is said."""

    def run(*words):
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["sparse_xp", *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        monkeypatch.delenv("HYDRA_FULL_ERROR")
        capsys.readouterr()
        try:
            cli()
            code, said = 0, ""
        except SystemExit as stop:
            code, said = (1, stop.code) if isinstance(stop.code, str) else (stop.code or 0, "")
        printed = capsys.readouterr()
        return code, printed.out + printed.err + said

    return run


# ---- the grid ----


def test_params_are_combined_and_a_cell_changes_them():
    found = expand({"task": ["a", "b"], "seed": 1}, {"x": {"recipe": "r"}, "y": {"task": "c", "seed": [2, 3]}}, [])
    assert found == [
        ("x", ["task=a", "seed=1", "recipe=r"]),
        ("x", ["task=b", "seed=1", "recipe=r"]),
        ("y", ["task=c", "seed=2"]),
        ("y", ["task=c", "seed=3"]),
    ]


def test_the_command_line_has_the_last_word():
    cells = {"x": {"recipe": "r", "seed": 9}}
    assert expand({"seed": [1, 2]}, cells, ["seed=5,6", "train.epochs=3"]) == [
        ("x", ["seed=5", "recipe=r", "train.epochs=3"]),
        ("x", ["seed=6", "recipe=r", "train.epochs=3"]),
    ]


def test_without_names_it_is_hydras_own_grid():
    assert expand({}, {}, ["a=1,2", "b=3"]) == [("", ["a=1", "b=3"]), ("", ["a=2", "b=3"])]


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "k=x"), (0.9, "k=0.9"), (True, "k=true"), (None, "k=null"), ([1, 2], "k=1,2"), ("['a=1']", "k=['a=1']")],
)
def test_a_yaml_value_as_a_word(value, text):
    assert word("k", value) == text


def test_a_mapping_is_no_value():
    with pytest.raises(UserError, match=r"train is a mapping\. Write its keys with dots: train\.epochs\."):
        word("train", {"epochs": 3})


def test_an_interval_is_for_a_search():
    with pytest.raises(UserError, match="hydra/sweeper=search"):
        expand({"train.learning_rate": "interval(0,1)"}, {}, [])


def test_what_changes_a_cell():
    arguments = ["seed=3", "task=squad", "recipe=dense", "model=minilm", "data.root=x", "log=none", "train.epochs=1"]
    assert changes(arguments, named=True) == ["recipe=dense", "model=minilm", "train.epochs=1"]
    assert changes(arguments, named=False) == ["model=minilm", "train.epochs=1"]


# ---- who teaches ----


def test_the_dense_cell_of_the_same_data_teaches():
    cells = [
        make_cell(words=["task=sst2", "recipe=dense", "+modifier@recipe.modifiers.x=LayerPruning"], directory="fewer"),
        make_cell(words=["task=sst2", "recipe=dense", "quantization=int8"], directory="int8"),
        make_cell(words=["task=squad", "recipe=dense"], directory="other task"),
        make_cell(words=["task=sst2", "recipe=dense", "train.epochs=9", "seed=1"], directory="yes"),
        make_cell(words=["task=sst2", "recipe=dense", "train.epochs=9", "seed=2"], seed=2, directory="second"),
    ]
    assert dense_cell(cells, "tiny", ["task=sst2", "recipe=dense"], None) is cells[3]
    assert dense_cell(cells, "tiny", ["task=sst2"], 2) is cells[4]
    assert dense_cell(cells, "bert_base", ["task=sst2"], None) is None
    assert dense_cell(cells, "tiny", ["task=sst2", "data.root=here"], None) is None


def test_teachers_are_launched_before_those_they_teach():
    cells = [
        make_cell(number=i, directory=d, teacher=t) for i, (d, t) in enumerate([("s", "t"), ("t", None), ("u", "t")])
    ]
    plan = Plan("p", Path("p"), cells, states={"s": "to do", "t": "interrupted", "u": "finished"})
    assert [[cell.directory for cell in wave] for wave in waves(plan, None)] == [["t"], ["s"]]
    plan.states["u"] = "failed"
    assert [[cell.directory for cell in wave] for wave in waves(plan, 1)] == [["t"], ["s"], ["u"]]


# ---- a sweep ----


def test_a_sweep_makes_its_cells_once(grid, made, command):
    words = grid()
    code, said = command(*words)
    assert (code, "4 to do" in said) == (0, True)
    assert list(made) == [
        f"sst2,tiny,{what},seed={seed}"
        for what in ("dense,embedded", "gradual80,embedded,recipe.sparsity=0.7")
        for seed in (1, 2)
    ]
    teachers = {config.teacher.path for config in made.values() if config.recipe.name != "dense"}
    assert teachers == {"outputs/mine/sst2,tiny,dense,embedded,seed=1"}
    made.clear()
    code, said = command(*words)
    assert (code, made, "4 finished" in said) == (0, {}, True)


def test_each_cell_has_its_own_command_that_finds_it_finished(grid, made, command):
    command(*grid(), "train.epochs=3", "seed=1")
    own = dict(made.commands)
    assert len(own) == 2
    made.clear()
    for name, line in own.items():
        words = shlex.split(line)[3:]
        assert words[-1] == f"hydra.run.dir=outputs/mine/{name}"
        assert command(*words)[0] == 0
    assert made == {}  # the same configurations in the same places: every one of them was there already


def test_a_failed_cell_hides_nothing(grid, made, command):
    made.broken = ("gradual80",)
    code, said = command(*grid(), "seed=1")
    assert code == 1
    assert "1 of 2 cells failed" in said
    assert "RuntimeError: gradual80 is broken" in said
    failed = Path("outputs/mine/sst2,tiny,gradual80,embedded,recipe.sparsity=0.7,seed=1/error.txt").read_text()
    assert failed.startswith("python -m sparse_xp profile=embedded log=none task=sst2 seed=1 recipe=gradual80")
    assert "Traceback" in failed
    assert len(list(Path("outputs/mine").glob("*dense*/result.json"))) == 1
    made.broken = ()
    assert command(*grid(), "seed=1")[0] == 0
    assert not list(Path("outputs/mine").glob("*/error.txt"))


def test_a_dry_run_runs_nothing(grid, made, command):
    code, said = command(*grid(), "hydra.sweeper.dry_run=true")
    assert (code, made) == (0, {})
    assert not list(Path("outputs/mine").glob("sst2*")) if Path("outputs/mine").exists() else True
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("| ")]
    assert [line[:2] + line[5:8] for line in lines[1:]] == [
        ["0", "dense", "1", "to do", ""],
        ["1", "dense", "2", "to do", ""],
        ["2", "sparse", "1", "to do", "job 0"],
        ["3", "sparse", "2", "to do", "job 0"],
    ]
    command(*grid(), "seed=1", "hydra.sweeper.jobs=[0]")
    _, said = command(*grid(), "hydra.sweeper.dry_run=true")
    assert "1 finished, 3 to do" in said
    assert "for 3 cells, going by finished runs" in said


def test_some_of_the_jobs(grid, made, command):
    assert command(*grid(), "hydra.sweeper.jobs=[1]")[0] == 0
    assert list(made) == ["sst2,tiny,dense,embedded,seed=2"]
    code, said = command(*grid(), "hydra.sweeper.jobs=[4]")
    assert code == 1
    assert "there is no 4, the sweep has jobs 0 to 3" in said


def test_a_manifest_keeps_what_earlier_calls_made(grid, made, command):
    command(*grid(), "hydra.sweeper.jobs=[0]")
    command(*grid(), "hydra.sweeper.jobs=[1]")
    assert [cell.seed for cell in read_manifest(Path("outputs/mine")).cells] == [1, 2]


# ---- what is refused, before anything is begun ----


@pytest.mark.parametrize(
    ("change", "published", "parts"),
    [
        (("task: sst2", "task: sst"), None, ["task=sst: there is no such task.", "Did you mean 'sst2'?"]),
        (("recipe.sparsity: 0.7", "recipe.sparsity: 70"), None, ["Cell sparse", "recipe.sparsity=70)", "such as 0.8"]),
        (("recipe: gradual80, recipe.sparsity: 0.7", "recipe: dense"), None, ["dense and sparse are the same run"]),
        (("sparse:", "dense:"), None, ["duplicate key", "dense"]),
        (("", ""), "sst2,spares,accuracy,91,,,,x,\n", ["cell 'spares' of task 'sst2'", "mean 'sst2 sparse'?"]),
        (("", ""), "sst2,dense,accuracy,91\n", ["mine.csv, line 2: want 9 values"]),
        (("", ""), "sst2,dense,accuracy,high,,,,x,\n", ["mine.csv, line 2: published=high: want a number"]),
        (("", ""), "sst2,dense,accuracy,91,,,,,\n", ["line 2: a published number needs its source"]),
        (("", ""), "sst2,dense,accuracy,91,,,,x,\n" * 2, ["line 3: sst2 dense accuracy stands in line 2 already"]),
    ],
)  # fmt: skip
def test_a_wrong_sweep_is_refused(change, published, parts, grid, made, command):
    code, said = command(*grid(GRID.replace(*change) if change[0] else GRID, published))
    assert code == 1
    for part in parts:
        assert part in said, said
    assert made == {}
    assert not list(Path("outputs/mine").glob("*/*"))


def test_runs_of_another_configuration_are_not_touched(grid, made, command):
    command(*grid(), "seed=2", "recipe=dense", "hydra.sweeper.jobs=[0]")
    stored = Path("outputs/mine/sst2,tiny,dense,embedded,seed=2/config.yaml")
    stored.write_text(re.sub("config_hash: .*", "config_hash: of-another-version", stored.read_text()))
    code, said = command(*grid())
    assert code == 1
    assert (
        "holds runs of another configuration or another version of sparse_xp: sst2,tiny,dense,embedded,seed=2." in said
    )


def test_a_manifest_of_another_version_is_refused(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"version": 0}))
    with pytest.raises(UserError, match=r"sweep\.json was written by another version"):
        read_manifest(tmp_path)


# ---- the state of a cell ----


def test_states(tmp_path):
    assert state(tmp_path, "abc") == "to do"
    write_error(tmp_path, "Traceback\n  File\nValueError: no\n\n", "command")
    assert state(tmp_path, "abc") == "failed"
    assert last_line(tmp_path / "error.txt") == "ValueError: no"
    (tmp_path / "error.txt").unlink()
    (tmp_path / "history.jsonl").touch()
    assert state(tmp_path, "abc") == "interrupted"
    (tmp_path / "config.yaml").write_text("config_hash: abc\n")
    (tmp_path / "result.json").touch()
    assert state(tmp_path, "abc") == "finished"
    assert state(tmp_path, "abd") == "foreign"


def test_a_manifest_is_read_back(tmp_path):
    plan = Plan("p", tmp_path / "p", [make_cell()])
    write_manifest(plan)
    assert read_manifest(tmp_path / "p") == plan
