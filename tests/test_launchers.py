"""Cells side by side, and on other people's engines: each launcher as a real process, on cells of a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from hydra_plugins.sparse_xp.slots import common_arguments
from sparse_xp.places import CONF
from sparse_xp.result import Result
from tests.runs import HANGS, configure

SMALL = (
    "profile=embedded", "log=none", "task=sst2", "data.embedded_train_rows=32", "data.embedded_eval_rows=8",
    "train.epochs=1",
)  # fmt: skip
LAUNCHERS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}


def sweep(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sparse_xp", "--multirun", *SMALL, *words, "hydra.sweep.dir=outputs/s"]
    env = os.environ | {"PYTHONPATH": str(CONF.parent), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANGS, env=env)


def needs(launcher: str) -> None:
    extra = LAUNCHERS[launcher]
    if find_spec(f"hydra_plugins.hydra_{extra}_launcher") is None:
        pytest.skip(f"the extra {extra} is not installed: pip install 'sparse-xp[{extra}]'")


@pytest.mark.parametrize("launcher", ["slots", *LAUNCHERS])
def test_every_launcher_composes(launcher):
    if launcher != "slots":
        needs(launcher)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=[f"hydra/launcher={launcher}", *SMALL], return_hydra_config=True)
    assert cfg.hydra.launcher._target_.startswith("hydra_plugins.")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_a_sweep_on_an_engine_of_others(launcher):
    needs(launcher)
    done = sweep("recipe=dense,gradual80", f"hydra/launcher={launcher}")
    assert done.returncode == 0, done.stderr
    dense, sparse = sorted(Path("outputs/s").glob("*/result.json"))
    assert Result.read(sparse).teacher == str(dense.parent)


@pytest.mark.slow
def test_a_failed_process_hides_nothing_of_the_one_beside_it():
    """Two cells learn from a dense run that is no cell of the sweep; one of them wants more zeros than there are."""
    done = sweep("recipe=pruned80", "sparsity.min_sparsity=0.8,0.95", "hydra/launcher=slots")
    assert done.returncode == 1
    assert "1 of 2 cells failed" in done.stderr
    good, bad = sorted(Path("outputs/s").glob("*pruned80*"))
    assert "80.0% zeros in __ENCODER__, expected at least 95%" in (bad / "error.txt").read_text()
    assert "hydra.run.dir" in (bad / "error.txt").read_text().splitlines()[0]
    result = Result.read(good / "result.json")
    assert f"hydra.run.dir=outputs/s/{good.name}" in result.provenance.command
    # The dense run was made by one of the two, the other waited for it.
    assert len(list(Path("outputs/s").glob("*dense*/result.json"))) == 1
    told = [line for log in Path("outputs/s").glob("*/log.txt") for line in log.read_text().splitlines()]
    assert sum("32 features, " in line for line in told) == 2  # the dense run and the one that went on
    # And what they need was built once, by whoever came first: the dense checkpoint, and the sparse one.
    assert len(list(Path("outputs/.cache/models").glob("tiny-*"))) == 2


def test_a_cell_gets_what_the_sweep_was_told_about_hydra():
    words = [
        "-m",
        "--config-dir",
        "sweeps",
        "--config-name",
        "x",
        "task=sst2",
        "hydra.sweep.dir=o",
        "hydra/launcher=slots",
    ]
    common = ["--config-dir", "sweeps", "--config-name", "x", "hydra.sweep.dir=o", "hydra/launcher=slots"]
    assert common_arguments(words) == common


# ---- sweeps of W&B ----


def agents_command(path: Path) -> list[str]:
    """The command line that a W&B agent makes of a sweep's file, with the first value of each parameter."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    first = {
        name: {"value": said["values"][0] if "values" in said else said["min"]}
        for name, said in raw["parameters"].items()
    }
    args = create_sweep_command_args({"args": first})["args_no_hyphens"]
    words = create_sweep_command([str(each) for each in raw["command"]])
    return [each for word in words for each in (args if word == "${args_no_hyphens}" else [word])]


@pytest.mark.parametrize("path", sorted((CONF.parent / "sweeps/wandb").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_command_of_a_wandb_agent_composes(path):
    assert agents_command(path)[:4] == ["${env}", "python", "-m", "sparse_xp"]
    words = agents_command(path)[4:]
    config = configure(*words)
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert raw["metric"]["name"] == f"exported/{config.task.metric}"
    assert set(raw["parameters"]) <= {word.split("=")[0] for word in words}


def test_a_run_of_a_wandb_agent_keeps_the_agents_id(monkeypatch, tmp_path):
    from sparse_xp.run import run

    words = agents_command(CONF.parent / "sweeps/wandb/distillation.yaml")[4:]
    monkeypatch.setenv("WANDB_RUN_ID", "fromagent")
    config = configure(*words, *SMALL[:1], *SMALL[3:], "log.mode=offline", "teacher=none")
    run(config, tmp_path / "run")
    assert (tmp_path / "run/wandb_id").read_text() == "fromagent"
    [kept_offline] = (tmp_path / "run/wandb").glob("offline-run-*-fromagent")
    tables = list(kept_offline.rglob("*.table.json"))
    assert [json.loads(table.read_text())["columns"][0] for table in tables] == ["task"]


# ---- trackers through Accelerate ----


@pytest.mark.parametrize(("tracker", "left"), [("mlflow", "mlflow.db"), ("trackio", "trackio")])
def test_other_trackers(tracker, left, tmp_path, monkeypatch):
    if find_spec(tracker) is None:
        pytest.skip(f"the extra {tracker} is not installed")
    from sparse_xp.run import run

    for name in ("MLFLOW_TRACKING_URI", "TRACKIO_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)  # what the run sets is taken back after the test
    run(configure(*SMALL, "recipe=dense", f"log={tracker}"), tmp_path / "run")
    assert (tmp_path / left).exists()
