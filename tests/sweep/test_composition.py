"""Cells that differ in their seed share a composition, and are what Hydra would have composed."""

from __future__ import annotations

import hydra
import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from sparse_xp.config import register
from sparse_xp.places import CONF
from sparse_xp.sweep.composition import CellLoader, compose_cell, compose_cells


class CountingLoader:
    """Hydra's loader, and how often it composed a run."""

    def __init__(self, loader: ConfigLoader):
        self.loader, self.runs = loader, 0

    def load_sweep_config(self, *words):
        self.runs += 1
        return self.loader.load_sweep_config(*words)

    def get_search_path(self):
        return self.loader.get_search_path()


@pytest.fixture
def loader():
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield CountingLoader(GlobalHydra.instance().config_loader())


def plain(composed):
    """All values of a composition, and where its run would be."""
    values = OmegaConf.to_container(composed, resolve=False)
    del values["hydra"]["job"]["override_dirname"]  # see can_share
    return values, composed.hydra.sweep.subdir


RUNS = [["task=sst2", f"recipe={recipe}", f"seed={seed}"] for recipe in ("dense", "gradual80") for seed in (1, 2, 3)]


def test_each_is_what_hydra_composes(loader, capsys):
    config = loader.loader.load_configuration("config", [], RunMode.MULTIRUN)
    composed = list(compose_cells(RUNS, config, loader))
    assert loader.runs == 2
    assert capsys.readouterr().out == "composing and checking 6 cells\n"
    assert [each.seed for each in composed] == [1, 2, 3] * 2
    for overrides, each in zip(RUNS, composed, strict=True):
        assert plain(each) == plain(compose_cell(overrides, config, loader))


@pytest.mark.parametrize(
    ("runs", "sweep", "times"),
    [
        ([["seed=1"], ["seed=2", "teacher.seed=1"]], [], 2),
        ([["seed=1"], ["seed=2", "seed=3"]], [], 2),
        ([["task=sst2"], ["task=sst2"]], [], 2),
        ([["seed=1"], ["seed=2"]], ["hydra.sweep.subdir=${hydra.job.override_dirname}"], 2),
        ([["seed=1", "task=sst2"], ["task=sst2", "seed=2"]], [], 1),
    ],
    ids=["another key", "two seeds", "no seed", "a directory of all overrides", "another order"],
)
def test_what_shares_and_what_does_not(runs, sweep, times, loader):
    config = loader.loader.load_configuration("config", sweep, RunMode.MULTIRUN)
    places = [each.hydra.sweep.subdir for each in compose_cells(runs, config, loader)]
    assert loader.runs == times
    assert places == [compose_cell(each, config, loader).hydra.sweep.subdir for each in runs]


def test_files_that_are_read_once_compose_the_same(loader):
    """Also the second time, when Hydra has written into what the first gave it."""
    config, own = loader.loader.load_configuration("config", [], RunMode.MULTIRUN), CellLoader(loader.get_search_path())
    for overrides in [*RUNS[:4], *RUNS[:4], ["recipe=prune80", "task=conll2003", "profile=embedded", "model=minilm"]]:
        assert compose_cell(overrides, config, own) == compose_cell(overrides, config, loader)


def test_configurations_of_the_user_are_found(loader, tmp_path):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/mine.yaml").write_text("# @package _global_\nrecipe: {name: mine}\ntrain: {epochs: 7}\n")
    config = loader.loader.load_configuration("config", [f"hydra.searchpath=[file://{tmp_path}]"], RunMode.MULTIRUN)
    own = CellLoader(loader.get_search_path())
    assert [compose_cell(["recipe=mine", f"seed={seed}"], config, own).train.epochs for seed in (1, 2)] == [7.0, 7.0]
