"""Which dense run teaches a cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse_xp.sweep.manifest import read_manifest
from sparse_xp.sweep.teachers import dense_cell, possible_teachers, with_labels_alone
from tests.sweep.cells import make_cell


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
    assert dense_cell(cells, "tiny", ["task=sst2", "data.unlabeled=u.txt", "data.encoding=latin-1"], 2) is cells[4]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["data.unlabeled=u.csv", "data.separator=tab"], []),
        (
            ["data.unlabeled='u.csv'", "data.train='t.csv'", "data.separator=tab"],
            ["data.train='t.csv'", "data.separator=tab"],
        ),
        (["data.unlabeled=u.csv", "data.train=t.parquet", "data.encoding=latin-1"], ["data.train=t.parquet"]),
        (["data.encoding=latin-1", "data.train=t.json"], ["data.encoding=latin-1", "data.train=t.json"]),
    ],
)
def test_a_dense_run_has_rows_with_labels_alone(words, kept):
    """What is said of the other file alone would be refused there."""
    assert with_labels_alone(["task=sst2", *words]) == ["task=sst2", *kept]


def test_a_trial_of_an_earlier_call_teaches_no_later_sweep():
    short = make_cell(words=["task=sst2", "recipe=dense", "train.steps=4"], directory="trial")
    plain = make_cell(words=["task=sst2", "recipe=dense", "profile=embedded", "seed=3", "log=none"], directory="plain")
    sparse = make_cell(words=["task=sst2", "recipe=gradual80", "train.steps=4"], recipe="gradual80", directory="sparse")
    again = make_cell(words=["task=sst2", "recipe=dense", "train.steps=4", "seed=2"], directory="again")
    assert possible_teachers([sparse], [short, plain, sparse]) == [plain]
    assert possible_teachers([sparse, again], [short, plain, sparse, again]) == [short, plain, again]


@pytest.mark.parametrize(
    "calls",
    [
        (["seed=1"], ["seed=2"]),
        pytest.param((["seed=1"], ["seed=2"], []), marks=pytest.mark.slow),
        pytest.param(([], ["train.epochs=3"], []), marks=pytest.mark.slow),
        pytest.param((["train.epochs=3"], [], ["train.epochs=3"]), marks=pytest.mark.slow),
        pytest.param((["hydra.sweeper.jobs=[3]"], ["hydra.sweeper.jobs=[2]"], []), marks=pytest.mark.slow),
    ],
)
def test_calls_of_one_sweep_agree_on_who_teaches(calls, grid, made, command):
    """What is planned is what is run, in whatever parts a sweep is made: nothing is found to be of another teacher."""
    for words in calls:
        code, said = command(*grid(), *words)
        assert (code, "foreign" in said) == (0, False), said
    for words in calls:
        made.clear()
        assert command(*grid(), *words)[0] == 0
        assert made == {}
    sparse = [each for each in read_manifest(Path("outputs/mine")).cells if each.recipe != "dense"]
    for variant in {"train.epochs=3" in each.words for each in sparse}:
        assert len({each.teacher for each in sparse if ("train.epochs=3" in each.words) == variant}) == 1
        teacher = next(each.teacher for each in sparse if ("train.epochs=3" in each.words) == variant)
        assert ("train.epochs=3" in teacher) == variant
