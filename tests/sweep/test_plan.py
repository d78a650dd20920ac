"""The plan: what is launched when, and what is refused before anything is begun."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparse_xp.inputs import record_inputs
from sparse_xp.sweep.cells import SweepPlan
from sparse_xp.sweep.plan import launch_waves
from tests.sweep.cells import GRID, make_cell


def test_teachers_are_launched_before_those_they_teach():
    cells = [
        make_cell(number=i, directory=d, teacher=t) for i, (d, t) in enumerate([("s", "t"), ("t", None), ("u", "t")])
    ]
    plan = SweepPlan("p", Path("p"), cells, states={"s": "to do", "t": "interrupted", "u": "finished"})
    assert [[cell.directory for cell in wave] for wave in launch_waves(plan, None)] == [["t"], ["s"]]
    plan.states["u"] = "failed"
    assert [[cell.directory for cell in wave] for wave in launch_waves(plan, 1)] == [["t"], ["s"], ["u"]]


def test_some_of_the_jobs(grid, made, command):
    assert command(*grid(), "hydra.sweeper.jobs=[1]")[0] == 0
    assert list(made) == ["sst2,tiny,dense,embedded,seed=2"]
    code, said = command(*grid(), "hydra.sweeper.jobs=[4]")
    assert code == 1
    assert "unknown job 4, the sweep has jobs 0 to 3" in said


@pytest.mark.parametrize(
    ("change", "published", "parts"),
    [
        (("task: sst2", "task: sst"), None, ["task=sst: there is no such task.", "Did you mean 'sst2'?"]),
        (("recipe.sparsity: 0.7", "recipe.sparsity: 70"), None, ["Cell sparse", "recipe.sparsity=70)", "such as 0.7"]),
        (("recipe: gradual80, recipe.sparsity: 0.7", "recipe: dense"), None, ["dense and sparse are the same run"]),
        (("sparse:", "dense:"), None, ["duplicate key", "dense"]),
        (("", ""), "sst2,spares,accuracy,91,,,,x,\n", ["cell 'spares' of task 'sst2'", "mean 'sst2 sparse'?"]),
        (("", ""), "sst2,dense,accuracy,91\n", ["mine.csv, line 2: expected 9 values"]),
        (("", ""), "sst2,dense,accuracy,high,,,,x,\n", ["mine.csv, line 2: published=high: expected a number"]),
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
    command(*grid(), "seed=2", "hydra.sweeper.jobs=[0]")
    stored = Path("outputs/mine/sst2,tiny,dense,embedded,seed=2/config.yaml")
    text = re.sub("config_hash: .*", "config_hash: of-another-version", stored.read_text())
    stored.write_text(text)
    assert command(*grid())[0] == 0  # the same values under the hash of an earlier version: the same run
    stored.write_text(re.sub("  epochs: .*", "  epochs: 77.0", text))
    code, said = command(*grid())
    assert code == 1
    told = "holds runs of another configuration, or files that no run wrote: sst2,tiny,dense,embedded,seed=2."
    assert told in said
    assert "They differ in train.epochs: 77.0 there, 10.0 here." in said


def test_a_cell_whose_data_have_changed_stops_the_sweep_before_anything_is_launched(grid, made, command):
    rows = Path("rows.csv")
    rows.write_text("sentence,label\n" + "a film,negative\nthe film,positive\n" * 10)
    words = [*grid(), "data.train=rows.csv", "hydra.sweeper.jobs=[0]"]
    assert command(*words)[0] == 0
    [(name, config)] = made.items()
    record_inputs(config.task, config.data, config.model, config.teacher, {"rows.csv": 20}, Path("outputs/mine") / name)
    assert command(*words)[0] == 0
    rows.write_text(rows.read_text() + "a film,negative\n")
    code, said = command(*words[:-1])
    assert code == 1
    assert "data.train: rows.csv has changed since the run in" in said
    assert "it had 20 rows, and has 21 now" in said
    assert list(made) == [name]
