"""Damage in the directory of a run: the run is mended and ends as it would have, or one line names the file."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparse_xp import export_command
from sparse_xp.errors import UserError
from sparse_xp.result import find_results
from sparse_xp.run import run
from sparse_xp.tasks import rows
from sparse_xp.training import checkpoint
from tests.runs import SHORT, configure, difference

pytestmark = pytest.mark.usefixtures("trained_only")

WORDS = (*SHORT, "task=sst2", "recipe=dense", "data.embedded_train_rows=32", "train.epochs=2")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


#: what may have happened to a file
DAMAGES = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "another type": lambda path: path.write_text("[]"),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()),
    "a directory": directory,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run, and one that was stopped between its second save and its end."""
    place = tmp_path_factory.mktemp("damaged")
    config = configure(*WORDS, f"data.cache={place}/cache", "train.save_every=1 steps", "train.eval_every=2 steps")
    run(config, place / "finished")

    class Power(Exception):
        """The plug is pulled."""

    def save_two(this):
        if this.progress.step == 4:
            raise Power
        real(this)

    real = checkpoint.save
    checkpoint.save = save_two
    try:
        with pytest.raises(Power):
            run(config, place / "interrupted")
    finally:
        checkpoint.save = real
    return SimpleNamespace(config=config, finished=place / "finished", interrupted=place / "interrupted")


def again(place, copy, *aside):
    """The same command again: nothing if the run ends as one that was never touched, else the message.

    ``aside``: files that have been moved aside, because they were no longer as they had been written.
    """
    try:
        run(place.config, copy)
    except UserError as error:
        return str(error)
    assert difference(place.finished, copy) == list(aside)
    return None


INTERRUPTED = {
    "checkpoints/step-00000003/state.pt": "step-00000003 is damaged (state.pt ",
    "checkpoints/step-00000003/checksums.txt": "step-00000003 is damaged (",
    "best/model.safetensors": "best is damaged (model.safetensors ",
    "best/recipe.pt": "best is damaged (recipe.pt ",
    "best/checksums.txt": "best",
    "history.jsonl": "history.jsonl ",
    "config.yaml": "config.yaml ",
    ".sparse_xp": ".sparse_xp is a directory, and should be a file",
}


#: half of this file may be valid YAML with the hash that counts; it is moved aside then
HALF = ("config.yaml", "cut")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupted_run(place, tmp_path, name, damage):
    copy = Path(shutil.copytree(place.interrupted, tmp_path / "run"))
    DAMAGES[damage](copy / name)
    told = again(place, copy, *(["config.yaml.changed-1"] if (name, damage) == HALF else []))
    if (name, damage) == HALF and told is None:
        return
    if name == ".sparse_xp" and damage != "a directory":  # config.yaml proves it too
        assert told is None
        return
    assert told
    assert INTERRUPTED[name] in told
    assert len(told.splitlines()) == 1
    assert os.path.lexists(copy / name) == (damage != "missing")


#: the files of a finished run that are read again, by who reads them
FINISHED = {
    "result.json": ("run", "report", "export"),
    "config.yaml": ("run", "export"),
    "history.jsonl": ("export",),
    "model/config.json": ("export",),
    "model/model.safetensors": ("export",),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("name", "reader"), [(name, each) for name, readers in FINISHED.items() for each in readers])
def test_a_finished_run(place, tmp_path, monkeypatch, name, reader, damage):
    copy = Path(shutil.copytree(place.finished, tmp_path / "run"))
    DAMAGES[damage](copy / name)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    monkeypatch.setattr("sparse_xp.run.execute", lambda *_: pytest.fail("it began to train"))
    readers = {
        "run": lambda: run(place.config, copy),
        "report": lambda: find_results([copy]),
        "export": lambda: export_command.main([f"run={copy}"]),
    }
    if (name, damage, reader) == ("result.json", "missing", "report"):
        assert readers[reader]() == []
    elif (name, damage, reader) == (*HALF, "run"):
        with suppress(UserError):
            readers[reader]()
    elif (name, damage) == ("result.json", "missing"):
        with pytest.raises((UserError, pytest.fail.Exception)):
            readers[reader]()
    else:
        with pytest.raises(UserError) as caught:
            readers[reader]()
        assert name.rpartition("/")[2] in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_an_interrupted_run_whose_data_are_others_now(place, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(place.interrupted, tmp_path / "run"))
    real = rows.read_source
    monkeypatch.setattr(rows, "read_source", lambda *given: (*real(*given)[:2], f"another file, {given[2]}"))
    told = again(place, copy)
    assert told
    assert told.startswith(f"The rows differ from those that {copy} was started with.")
    monkeypatch.undo()
    assert again(place, copy) is None


def test_what_the_user_adds_to_an_interrupted_run_is_there_when_it_ends(place, tmp_path):
    """Notes under the names of files that the run writes at its end, or removes."""
    copy = Path(shutil.copytree(place.interrupted, tmp_path / "run"))
    (copy / "checkpoints" / "step-backup").mkdir()
    for name in ("checkpoints/step-backup/notes", "report.md", "error.txt", "notes.txt"):
        (copy / name).write_text("mine")
    with (copy / "config.yaml").open("a") as file:
        file.write("# my comment\n")
    run(place.config, copy)
    kept = ("checkpoints/step-backup/notes", "report.md.changed-1", "error.txt", "notes.txt")
    assert [(copy / name).read_text() for name in kept] == ["mine"] * 4
    assert (copy / "config.yaml.changed-1").read_text().endswith("# my comment\n")
    assert sorted(difference(place.finished, copy)) == sorted([*kept, "config.yaml.changed-1"])
