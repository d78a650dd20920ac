"""What a run was made from is compared before its result is given again, or it is continued."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sparse_xp.errors import UserError
from sparse_xp.files.ownership import write_marker
from sparse_xp.inputs import check_inputs, record_inputs
from sparse_xp.run import run
from sparse_xp.settings import Data, Model, TeacherSource
from sparse_xp.tasks import TextClassification
from tests.runs import configure

RUN = Path("run")
TASK = TextClassification(name="mine", dataset=None, folder="mine", text="text", classes=["bad", "good"])
DATA = Data(train="rows.csv", validation="held.csv")
MODEL = Model(name="m", checkpoint="model")
TEACHER = TeacherSource(source="checkpoint", path="teacher")


@pytest.fixture(autouse=True)
def recorded():
    """A run that has begun, made from two files, a checkpoint and the run of a teacher."""
    write_rows(8)
    write_rows(4, "held.csv")
    for model in (Path("model"), Path("teacher/model")):
        model.mkdir(parents=True)
        for name, text in {"config.json": "{}", "model.safetensors": "abc", "vocab.txt": "a", "README.md": ""}.items():
            (model / name).write_text(text)
    RUN.mkdir()
    write_marker(RUN, "run")
    record_inputs(TASK, DATA, MODEL, TEACHER, {"rows.csv": 8, "held.csv": 4}, RUN)
    (RUN / "history.jsonl").write_text("")


def write_rows(count: int, name: str = "rows.csv") -> None:
    Path(name).write_text("text,label\n" + "".join(f"film {i},{('bad', 'good')[i % 2]}\n" for i in range(count)))


def check() -> None:
    check_inputs(RUN, TASK, DATA)


def test_the_record_names_everything_that_the_run_is_made_from():
    inputs = json.loads((RUN / "inputs.json").read_text())["inputs"]
    assert [(each["key"], each["path"], each["rows"]) for each in inputs] == [
        ("data.train", "rows.csv", 8),
        ("data.validation", "held.csv", 4),
        ("model.checkpoint", "model", None),
        ("teacher.path", "teacher/model", None),
    ]


def test_what_was_only_touched_or_copied_has_not_changed():
    check()
    os.utime("rows.csv", (1, 1))
    shutil.copytree("model", "copy")
    shutil.rmtree("model")
    shutil.move("copy", "model")
    Path("model/README.md").write_text("another")
    Path("teacher/report.md").write_text("another")
    check()


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        (
            "rows.csv",
            9,
            r"data\.train: rows\.csv has changed since the run in run began \(it had 8 rows, and has 9 now\)",
        ),
        ("held.csv", 2, r"data\.validation: held\.csv has changed .*\(it had 4 rows, and has 2 now\)\. To train on"),
    ],
)
def test_a_changed_file_of_rows(name, count, message):
    write_rows(count, name)
    with pytest.raises(UserError, match=message):
        check()


def test_a_changed_file_of_rows_without_labels():
    data = replace(DATA, unlabeled="more.txt")
    Path("more.txt").write_text("one\ntwo\n")
    record_inputs(TASK, data, MODEL, TEACHER, {"rows.csv": 8, "held.csv": 4, "more.txt": 2}, RUN)
    check_inputs(RUN, TASK, data)
    Path("more.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(UserError, match=r"data\.unlabeled: more\.txt has changed .*\(it had 2 rows, and has 3 now\)"):
        check_inputs(RUN, TASK, data)


def test_as_many_rows_that_are_others_and_rows_that_cannot_be_read():
    text = Path("rows.csv").read_text()
    Path("rows.csv").write_text(text.replace("film 1", "tale 1"))
    with pytest.raises(UserError, match="it had 8 rows, and has 8 now, not the same"):
        check()
    Path("rows.csv").write_bytes(b"\0")
    with pytest.raises(UserError, match=r"it had 8 rows, and cannot be read now: rows\.csv, line 1: a NUL byte"):
        check()
    Path("rows.csv").write_text(text)
    check()


@pytest.mark.parametrize("name", ["model/model.safetensors", "model/vocab.txt", "teacher/model/config.json"])
def test_a_changed_model(name):
    Path(name).write_text("another")
    key, place = ("model.checkpoint", "model") if name.startswith("model") else ("teacher.path", "teacher/model")
    with pytest.raises(UserError, match=f"{key}: {place} has changed since the run in run began. To train"):
        check()


def test_what_is_gone_is_no_change():
    Path("rows.csv").unlink()
    shutil.rmtree("model")
    check()


def test_a_run_that_kept_nothing_has_nothing_to_compare():
    write_rows(9)
    (RUN / "history.jsonl").unlink()
    check()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"inputs": [{"key": 1}]}', '{"inputs": [{"key": 1, "path": "a", "stamp": "", "digest": ""}]}']
)
def test_a_damaged_record_is_named(text):
    (RUN / "inputs.json").write_text(text)
    with pytest.raises(UserError, match=r"run/inputs\.json .* Restore it, or move run away"):
        check()


@pytest.mark.usefixtures("trained_only")
def test_a_finished_run_and_one_in_the_middle_do_not_go_on_with_other_rows(capsys):
    config = configure(
        *("task=custom_classification", "profile=embedded", "log=none", "train.epochs=1"),
        *("data.train=rows.csv", "data.validation=held.csv"),
    )
    directory = Path("out").absolute()
    result = run(config, directory)
    assert run(config, directory) == result
    assert "finished already" in capsys.readouterr().out
    write_rows(9)
    for finished in (True, False):
        if not finished:
            (directory / "result.json").unlink()
        with pytest.raises(UserError, match=r"data\.train: rows\.csv has changed .*it had 8 rows, and has 9 now"):
            run(config, directory)
    write_rows(8)
    assert run(config, directory).metrics == result.metrics
