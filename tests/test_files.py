"""Files and directories that are whole or not there, whatever goes wrong while they are written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparse_xp import files
from sparse_xp.errors import UserError
from sparse_xp.files import whole_directory, write_text

PLENTY = 10**12


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(os.listdir(folder))


def fail(error: BaseException):
    def instead(*arguments, **keywords):
        raise error

    return instead


# A file


def test_a_text_is_written_and_replaced(tmp_path):
    path = tmp_path / "result.json"
    write_text(path, "first, longer than the second\n")
    write_text(path, "zweitens: größer\n")
    assert path.read_text(encoding="utf-8") == "zweitens: größer\n"
    assert names(tmp_path) == ["result.json"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize("error", [RuntimeError("the power is out"), KeyboardInterrupt()])
def test_a_text_that_fails_leaves_the_old_one_and_no_draft(tmp_path, monkeypatch, broken, error):
    path = tmp_path / "result.json"
    write_text(path, "old")
    monkeypatch.setattr(os, broken, fail(error))
    with pytest.raises(type(error)):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.json"]


def test_the_old_text_is_there_until_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    path, seen = tmp_path / "result.json", []
    write_text(path, "old")
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(("synced", path.read_text())))
    monkeypatch.setattr(os, "replace", lambda *a: (seen.append(("replaced", path.read_text())), replace(*a)))
    write_text(path, "new")
    assert seen == [("synced", "old"), ("replaced", "old")]
    assert path.read_text() == "new"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_message_that_names_the_path(tmp_path, monkeypatch, number):
    path = tmp_path / "result.json"
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", fail(OSError(number, os.strerror(number))))
    with pytest.raises(UserError, match=r"No space left on the disk while writing .*hydra\.run\.dir=") as caught:
        write_text(path, "new")
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.json"]


def test_other_errors_stay_what_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail(PermissionError(errno.EACCES, "no")))
    with pytest.raises(PermissionError):
        write_text(tmp_path / "result.json", "new")


# A directory


def write_two(folder: Path, text: str) -> None:
    (folder / "sub").mkdir()
    (folder / "a.txt").write_text(text)
    (folder / "sub" / "b.txt").write_text(text)


def read_two(folder: Path) -> list[str]:
    return [(folder / "a.txt").read_text(), (folder / "sub" / "b.txt").read_text()]


def test_a_directory_is_written_and_replaced_as_a_whole(tmp_path):
    path = tmp_path / "runs" / "model"  # the parent is made too
    with whole_directory(path) as draft:
        write_two(draft, "old")
        (draft / "only_in_the_old").touch()
    with whole_directory(path) as draft:
        assert names(draft) == []
        write_two(draft, "new")
    assert read_two(path) == ["new", "new"]
    assert names(path) == ["a.txt", "sub"]
    assert names(path.parent) == ["model"]


@pytest.mark.parametrize("error", [RuntimeError("the power is out"), KeyboardInterrupt(), UserError("a bad value")])
@pytest.mark.parametrize("existed", [True, False])
def test_an_exception_inside_leaves_the_old_one_untouched(tmp_path, error, existed):
    path = tmp_path / "model"
    if existed:
        with whole_directory(path) as draft:
            write_two(draft, "old")

    def write_and_break():
        with whole_directory(path) as draft:
            (draft / "a.txt").write_text("new")
            raise error

    with pytest.raises(type(error)) as caught:
        write_and_break()
    assert caught.value is error
    assert names(tmp_path) == (["model"] if existed else [])
    assert not existed or read_two(path) == ["old", "old"]


def test_a_directory_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    path, rename = tmp_path / "model", os.rename
    with whole_directory(path) as draft:
        write_two(draft, "old")

    def refuse_the_draft(source, target):
        if Path(source) == refused and Path(target) == path:
            raise PermissionError(errno.EACCES, "no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_the_draft)
    with pytest.raises(PermissionError), whole_directory(path) as refused:
        write_two(refused, "new")
    assert read_two(path) == ["old", "old"]
    assert names(tmp_path) == ["model"]


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    path = tmp_path / "model"
    (tmp_path / ".model.tmp").mkdir()
    (tmp_path / ".model.tmp" / "half").touch()
    with whole_directory(path) as draft:
        write_two(draft, "new")
    assert names(path) == ["a.txt", "sub"]
    assert names(tmp_path) == ["model"]


def test_a_reader_sees_the_old_directory_or_the_new_one_or_none_and_never_half(tmp_path, monkeypatch):
    path, seen = tmp_path / "model", []

    def look():
        seen.append(read_two(path) if path.exists() else None)

    def look_around(function):
        def instead(*arguments):
            look()
            function(*arguments)
            look()

        return instead

    monkeypatch.setattr(os, "rename", look_around(os.rename))
    monkeypatch.setattr(os, "fsync", look_around(os.fsync))
    for text in ("old", "new"):
        with whole_directory(path) as draft:
            (draft / "sub").mkdir()
            look()
            (draft / "a.txt").write_text(text)
            look()
            (draft / "sub" / "b.txt").write_text(text)
        look()
    assert all(sight in (None, ["old", "old"], ["new", "new"]) for sight in seen)
    first = seen.index(["old", "old"])
    assert first >= 7  # two sights while writing, two around each of two fsyncs, one before the rename
    assert set(map(str, seen[:first])) == {"None"}
    assert seen[-1] == ["new", "new"]


def test_a_draft_does_not_look_like_a_checkpoint(tmp_path):
    with whole_directory(tmp_path / "step-00000010") as draft:
        assert draft.is_dir()
        assert list(tmp_path.glob("step-*")) == []
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000010"]


def test_a_disk_that_fills_up_inside_a_directory_is_a_message(tmp_path):
    path = tmp_path / "step-00000010"
    with pytest.raises(UserError, match="No space left on the disk while writing") as caught, whole_directory(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(path) in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("free", "kind"), [(999_999, UserError), (PLENTY, RuntimeError)])
def test_a_writer_without_an_errno_is_explained_only_when_the_disk_is_full(tmp_path, monkeypatch, free, kind):
    # torch.save says RuntimeError("PytorchStreamWriter failed writing file ...").
    monkeypatch.setattr(files, "_free", lambda path: free)
    with pytest.raises(kind), whole_directory(tmp_path / "model"):
        raise RuntimeError("PytorchStreamWriter failed writing file data/3")


def test_an_explained_error_is_not_explained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_free", lambda path: 0)
    with pytest.raises(UserError, match=r"^a bad value$"), whole_directory(tmp_path / "model"):
        raise UserError("a bad value")


def test_only_one_process_is_at_work_on_a_directory(tmp_path):
    """The other one says that it waits, and goes on when the first is done, or dead."""
    holder = "import sys, time; from pathlib import Path; from sparse_xp.files import one_at_a_time\n"
    holder += "with one_at_a_time(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])},
    )
    assert other.stdout.readline() == "held\n"
    said = []

    def told(text):
        said.append(text)
        other.kill()

    with files.one_at_a_time(tmp_path / "run", told):
        pass
    assert said == [f"{tmp_path}/run: another process is at work on it; waiting"]
    other.wait()


def test_files_are_as_readable_as_their_directory(tmp_path):
    """Some libraries write for the owner alone, and a deployment folder is used by others."""
    with whole_directory(tmp_path / "new") as draft:
        (draft / "private").touch(0o600)
    directory, file = tmp_path / "new", tmp_path / "new" / "private"
    assert file.stat().st_mode & 0o777 == directory.stat().st_mode & 0o666
