"""Trackers, read back from what they wrote: one curve of an interrupted run, its configuration, its summary."""

from __future__ import annotations

import csv
import json
import struct
import time
from collections import Counter
from dataclasses import asdict
from importlib.util import find_spec

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from sparse_xp.clock import Clock
from sparse_xp.config import with_job
from sparse_xp.errors import UserError
from sparse_xp.history import History, tracked_values
from sparse_xp.result import Provenance, Result
from sparse_xp.training.trackers.summary import finished_values, trained_values
from sparse_xp.training.trackers.tracking import (
    NEEDED,
    check_installed,
    log_result,
    log_summary,
    start_tracker,
    tracked_run,
)
from tests.runs import HANGS, configure
from tests.tiny import make_result

CLOCK = Clock(steps_per_epoch=4, total_steps=8)
RECORDED = Provenance("python -m sparse_xp", "abc123", {"torch": "2.9"}, "0123456789", "fedcba")


@pytest.fixture(autouse=True)
def _of_its_own(monkeypatch):
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "MLFLOW_TRACKING_URI", "TRACKIO_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)  # what the run sets is taken back after the test
    yield
    AcceleratorState._reset_state(reset_partial_state=True)  # Accelerate keeps its settings in the process
    GradientState._reset_state()


def needs(tracker):
    if missing := [name for name in NEEDED[tracker] if find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}: pip install 'sparse-xp[{tracker}]'")


def tracked(config, directory):
    names = [config.task.name, config.model.name, config.recipe.name]
    return tracked_run(config.log, directory, names, asdict(config), RECORDED)


def part(directory, config, steps, first_line=0, result: Result | None = None):
    """One process of a run: from a checkpoint at step ``steps[0] - 1`` it logs ``steps``, and ends."""
    history = History(directory / "history.jsonl", every=1)
    history.rewind(steps[0] - 1, first_line)
    accelerator = Accelerator(cpu=True)
    start_tracker(accelerator, config.log.tracker, tracked(config, directory), history)
    for step in steps:
        history.log_step(step, CLOCK, 1 / step, 0.5, {"lr": 1e-3})
        if step % 4 == 0:
            history.log_evaluation(step, CLOCK, {"accuracy": 10.0 * step}, valid=True)
    if result:
        log_result(accelerator, result, finished_values(result, 80.0, None), artifacts=False)
    for tracker in accelerator.trackers:
        tracker.finish()
    return history


def interrupted_run(directory, tracker, *words):
    """A run that was stopped at step 5, after a checkpoint at step 3, and continued; and its points."""
    config = configure("task=sst2", "model=tiny", "recipe=dense", f"log={tracker}", "log.tags=[mine]", *words)
    directory.mkdir()
    part(directory, config, range(1, 6))
    lines = part(directory, config, range(4, 9), first_line=3, result=make_result()).read()
    return {(name, line["step"]): value for line in lines for name, value in tracked_values(line).items()}


def check(points, found, values):
    """Every point is there once, and besides them the summary alone."""
    counted = Counter(found)
    assert [point for point, count in counted.items() if count > 1] == []
    assert set(points) <= set(counted)
    assert {name for name, _ in set(counted) - set(points)} <= set(finished_values(make_result(), 80.0, None))
    assert all(values[point] == pytest.approx(value, rel=1e-6) for point, value in points.items())


def wandb_records(path):
    """The records of a file that W&B keeps for later: chunks of blocks of 32 KiB, as LevelDB writes them."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, pieces = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        pieces = (b"" if kind in (1, 2) else pieces) + data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(pieces)
            yield record


def read_wandb(directory):
    """The run, configuration, history and summary in the one file of a run."""
    [path] = directory.rglob("*.wandb")
    deadline, records = time.monotonic() + HANGS, list(wandb_records(path))
    while not {"run", "exit"} <= {record.WhichOneof("record_type") for record in records}:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # W&B's own process writes the file
        records = list(wandb_records(path))
    [run] = [record.run for record in records if record.HasField("run")]
    steps = [
        (record.history.step.num, {"/".join([item.key, *item.nested_key]).strip("/"): json.loads(item.value_json)
         for item in record.history.item})
        for record in records if record.HasField("history")
    ]  # fmt: skip
    updates = [update for record in records if record.HasField("summary") for update in record.summary.update]
    summary = {"/".join([each.key, *each.nested_key]).strip("/"): json.loads(each.value_json) for each in updates}
    config = {each.key: json.loads(each.value_json) for each in run.config.update}
    return run, config, steps, summary


def test_wandb(tmp_path):
    points = interrupted_run(tmp_path / "run", "default")
    run, config, steps, summary = read_wandb(tmp_path / "run")
    assert [step for step, _ in steps] == sorted({step for step, _ in steps})
    values = {(name, step): value for step, row in steps for name, value in row.items() if not name.startswith("_")}
    curve = {point: value for point, value in values.items() if not point[0].startswith("result")}
    check(points, list(curve), curve)
    assert run.run_id == (tmp_path / "run/wandb_id").read_text()
    assert (list(run.tags), run.job_type, run.run_group) == (["sst2", "tiny", "dense", "mine"], "train", tmp_path.name)
    assert (config["config_hash"], config["data_fingerprint"], config["versions"]) == (
        "0123456789", "fedcba", {"torch": "2.9"},
    )  # fmt: skip
    assert config["train"]["batch_size"] == 32
    expected = finished_values(make_result(), 80.0, None)
    assert {name: summary[name] for name in expected} == pytest.approx(expected)


def test_a_wandb_agent_names_its_run_and_not_the_teacher_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "fromagent")
    config = configure("task=sst2", "model=tiny", "recipe=dense", "log=default")
    for job in ("teacher", "sweep"):
        (tmp_path / job).mkdir()
        part(tmp_path / job, with_job(config, job), range(1, 3))
    assert read_wandb(tmp_path / "sweep")[0].run_id == "fromagent"
    teacher = read_wandb(tmp_path / "teacher")[0]
    assert (teacher.run_id == "fromagent", teacher.job_type) == (False, "teacher")


def test_tensorboard(tmp_path):
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points = interrupted_run(tmp_path / "run", "tensorboard")
    found = EventAccumulator(str(tmp_path / "run/sparse_xp"), size_guidance={"scalars": 0}).Reload()
    values = {(tag, event.step): event.value for tag in found.Tags()["scalars"] for event in found.Scalars(tag)}
    check(points, [(tag, event.step) for tag in found.Tags()["scalars"] for event in found.Scalars(tag)], values)
    assert "config/text_summary" in found.Tags()["tensors"]
    hyperparameters = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"0123456789" in hyperparameters
    assert b"train.batch_size" in hyperparameters


def test_mlflow(tmp_path):
    needs("mlflow")
    import mlflow

    points = interrupted_run(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.get_run((tmp_path / "run/mlflow_id").read_text())
    curves = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    values = {(name, point.step): point.value for name, curve in curves.items() for point in curve}
    check(points, [(name, point.step) for name, curve in curves.items() for point in curve], values)
    assert (run.data.params["config_hash"], run.data.params["versions.torch"]) == ("0123456789", "2.9")
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    assert tags == {
        **dict.fromkeys(("sst2", "tiny", "dense", "mine"), ""), "group": tmp_path.name, "job_type": "train",
        "teacher": "none", "quantization": "none",
    }  # fmt: skip


def test_trackio(tmp_path):
    needs("trackio")
    project = f"of-{tmp_path.parent.name}-{tmp_path.name}"
    points = interrupted_run(tmp_path / "run", "trackio", f"log.project={project}")
    from trackio.sqlite_storage import SQLiteStorage

    assert SQLiteStorage.get_runs(project) == ["run"]
    rows = SQLiteStorage.get_logs(project, "run")
    values = {(name, row["step"]): value for row in rows for name, value in row.items()}
    found = [(name, row["step"]) for row in rows for name in row if name not in ("step", "timestamp")]
    check(points, found, values)
    config = SQLiteStorage.get_run_config(project, "run")
    assert (config["config_hash"], config["tags"], config["job_type"]) == (
        "0123456789",
        "sst2, tiny, dense, mine",
        "train",
    )


def test_csv(tmp_path):
    points = interrupted_run(tmp_path / "run", "csv")
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "epoch", "loss", "grad_norm", "lr", "eval/accuracy"]
    found = [(name, int(row["step"])) for row in rows for name, cell in row.items() if name != "step" and cell]
    values = {(name, int(row["step"])): float(cell) for row in rows for name, cell in row.items() if cell}
    check(points, found, values)


def test_a_tracker_that_joins_later_has_the_whole_curve(tmp_path):
    (tmp_path / "run").mkdir()
    part(tmp_path / "run", configure("task=sst2", "model=tiny", "recipe=dense", "log=none"), range(1, 4))
    joined = configure("task=sst2", "model=tiny", "recipe=dense", "log=csv")
    part(tmp_path / "run", joined, range(4, 6), first_line=3)
    lines = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "1", "2", "3", "4", "4", "5"]


def test_a_run_that_the_gate_refuses_is_not_valid(tmp_path):
    config = configure("task=sst2", "model=tiny", "recipe=dense", "log=default")
    accelerator = Accelerator(cpu=True)
    history = History(tmp_path / "history.jsonl", every=1)
    start_tracker(accelerator, "wandb", tracked(config, tmp_path), history)
    log_summary(accelerator, trained_values(make_result()), step=8)
    accelerator.trackers[0].finish()
    summary = read_wandb(tmp_path)[3]
    assert (summary["valid"], "score" in summary) == (False, False)


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(NEEDED, "mlflow", ("mlflow_that_nobody_has",))
    with pytest.raises(UserError, match=r"log=mlflow: mlflow_that_nobody_has is not installed: pip install 'sparse-xp"):
        check_installed("mlflow")
    check_installed("csv")
