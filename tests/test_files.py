"""Files and directories that are whole or not there, whatever goes wrong while they are written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sparse_xp
from sparse_xp.errors import UserError
from sparse_xp.files import writing
from sparse_xp.files.checksums import CHECKSUMS, MARKER, find_damage, write_checksums
from sparse_xp.files.directories import atomic_directory, restore_interrupted
from sparse_xp.files.locks import file_lock
from sparse_xp.files.ownership import remove_own, write_marker
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.signed import has_valid_signature, is_signed, move_aside, sign_text
from sparse_xp.files.writing import DRAFT, reserve_space, write_text

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


def test_a_name_like_that_of_a_draft_may_be_the_users_or_a_link(tmp_path):
    (tmp_path / "thesis").write_text("all of it")
    (tmp_path / ".result.json.tmp").symlink_to(tmp_path / "thesis")
    write_text(tmp_path / "result.json", "new")
    assert (tmp_path / "thesis").read_text() == "all of it"
    assert not (tmp_path / "result.json").is_symlink()
    assert names(tmp_path) == [".result.json.tmp", "result.json", "thesis"]


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
    with atomic_directory(path, "model") as draft:
        write_two(draft, "old")
        (draft / "only_in_the_old").touch()
    with atomic_directory(path, "model") as draft:
        assert names(draft) == [MARKER]
        write_two(draft, "new")
    assert read_two(path) == ["new", "new"]
    assert names(path) == [MARKER, "a.txt", CHECKSUMS, "sub"]
    assert names(path.parent) == ["model"]


@pytest.mark.parametrize("error", [RuntimeError("the power is out"), KeyboardInterrupt(), UserError("a bad value")])
@pytest.mark.parametrize("existed", [True, False])
def test_an_exception_inside_leaves_the_old_one_untouched(tmp_path, error, existed):
    path = tmp_path / "model"
    if existed:
        with atomic_directory(path, "model") as draft:
            write_two(draft, "old")

    def write_and_break():
        with atomic_directory(path, "model") as draft:
            (draft / "a.txt").write_text("new")
            raise error

    with pytest.raises(type(error)) as caught:
        write_and_break()
    assert caught.value is error
    assert names(tmp_path) == (["model"] if existed else [])
    assert not existed or read_two(path) == ["old", "old"]


def test_a_directory_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    path, rename = tmp_path / "model", os.rename
    with atomic_directory(path, "model") as draft:
        write_two(draft, "old")

    def refuse_the_draft(source, target):
        if Path(source) == refused and Path(target) == path:
            raise PermissionError(errno.EACCES, "no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_the_draft)
    with pytest.raises(PermissionError), atomic_directory(path, "model") as refused:
        write_two(refused, "new")
    assert read_two(path) == ["old", "old"]
    assert names(tmp_path) == ["model"]


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    path = tmp_path / "model"
    (tmp_path / ".model.tmp").mkdir()
    write_marker(tmp_path / ".model.tmp", "model")
    (tmp_path / ".model.tmp" / "half").touch()
    with atomic_directory(path, "model") as draft:
        write_two(draft, "new")
    assert names(path) == [MARKER, "a.txt", CHECKSUMS, "sub"]
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
        with atomic_directory(path, "model") as draft:
            (draft / "sub").mkdir()
            look()
            (draft / "a.txt").write_text(text)
            look()
            (draft / "sub" / "b.txt").write_text(text)
        look()
    assert all(sight in (None, ["old", "old"], ["new", "new"]) for sight in seen)
    first = seen.index(["old", "old"])
    assert first >= 7  # two sights while writing, two around each fsync, one before the rename
    assert set(map(str, seen[:first])) == {"None"}
    assert seen[-1] == ["new", "new"]


def test_a_draft_does_not_look_like_a_checkpoint(tmp_path):
    with atomic_directory(tmp_path / "step-00000010", "checkpoint") as draft:
        assert draft.is_dir()
        assert list(tmp_path.glob("step-*")) == []
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000010"]


def test_a_disk_that_fills_up_inside_a_directory_is_a_message(tmp_path):
    path = tmp_path / "step-00000010"
    with (
        pytest.raises(UserError, match="No space left on the disk while writing") as caught,
        atomic_directory(path, "checkpoint"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(path) in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("free", "kind"), [(999_999, UserError), (PLENTY, RuntimeError)])
def test_a_writer_without_an_errno_is_explained_only_when_the_disk_is_full(tmp_path, monkeypatch, free, kind):
    # torch.save says RuntimeError("PytorchStreamWriter failed writing file ...").
    monkeypatch.setattr(writing, "_free_bytes", lambda path: free)
    with pytest.raises(kind), atomic_directory(tmp_path / "model", "model"):
        raise RuntimeError("PytorchStreamWriter failed writing file data/3")


def test_an_explained_error_is_not_explained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_free_bytes", lambda path: 0)
    with pytest.raises(UserError, match=r"^a bad value$"), atomic_directory(tmp_path / "model", "model"):
        raise UserError("a bad value")


# Whose it is


def own(path: Path, kind: str = "model") -> Path:
    """A directory as ``atomic_directory`` leaves it."""
    with atomic_directory(path, kind) as draft:
        write_two(draft, "ours")
    return path


def thesis(path: Path) -> Path:
    """A directory of the user's."""
    path.mkdir()
    (path / "chapter.txt").write_text("all of it")
    return path


def foreign_directory(path: Path) -> None:
    thesis(path)


def foreign_with_a_list(path: Path) -> None:
    thesis(path)
    write_checksums(path)  # as the user's own sha256sum would


def foreign_kind(path: Path) -> None:
    own(path, "checkpoint")


def foreign_file_beside(path: Path) -> None:
    (own(path) / "notes.txt").write_text("mine")


def foreign_file_below(path: Path) -> None:
    (own(path) / "sub" / "notes.txt").write_text("mine")


def foreign_link_beside(path: Path) -> None:
    (own(path) / "link").symlink_to(thesis(path.with_name("elsewhere")))


def cut_list(path: Path) -> None:
    (own(path) / CHECKSUMS).write_text("")


def file_in_its_place(path: Path) -> None:
    path.write_text("mine")


FOREIGN = [
    foreign_directory,
    foreign_with_a_list,
    foreign_kind,
    foreign_file_beside,
    foreign_file_below,
    foreign_link_beside,
    cut_list,
    file_in_its_place,
]


def contents(place: Path) -> dict[str, str]:
    """Every file below a directory, with what it says."""
    return {str(path.relative_to(place)): path.read_text() for path in sorted(place.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("through", ["itself", "a link", "a trailing slash", "a detour"])
@pytest.mark.parametrize("make", FOREIGN)
def test_what_is_not_provably_ours_is_left_as_it_is(tmp_path, make, through):
    place = tmp_path / "thesis"
    make(place)
    (tmp_path / "link").symlink_to(place)
    before = contents(tmp_path)
    given = {"itself": place, "a link": tmp_path / "link", "a detour": tmp_path / "none" / ".." / "thesis"}
    given["a trailing slash"] = Path(f"{place}/")
    with (
        pytest.raises(UserError, match=", and is left as it is") as caught,
        atomic_directory(given[through], "model"),
    ):
        pytest.fail("it may write")
    holds = {foreign_kind: "a checkpoint", foreign_file_beside: "what sparse_xp did not write (notes.txt)"}
    assert str(caught.value).startswith(f"{given[through]} holds {holds.get(make, 'what sparse_xp did not write')}")
    assert not remove_own(place, "model")
    assert contents(tmp_path) == before


def test_an_own_directory_behind_a_link_is_replaced_where_it_is(tmp_path):
    (tmp_path / "link").symlink_to(own(tmp_path / "model"))
    with atomic_directory(tmp_path / "link", "model") as draft:
        write_two(draft, "new")
    assert (tmp_path / "link").is_symlink()
    assert read_two(tmp_path / "model") == ["new", "new"]
    assert names(tmp_path) == ["link", "model"]


def test_an_empty_directory_may_be_filled(tmp_path):
    (tmp_path / "model").mkdir()
    assert read_two(own(tmp_path / "model")) == ["ours", "ours"]


@pytest.mark.parametrize("name", [".model.tmp", ".model.old"])
def test_a_name_that_a_writer_needs_may_be_the_users(tmp_path, name):
    thesis(tmp_path / name)
    with (
        pytest.raises(UserError, match=f"{name} holds what sparse_xp did not write"),
        atomic_directory(tmp_path / "model", "model"),
    ):
        pytest.fail("it may write")
    assert contents(tmp_path) == {f"{name}/chapter.txt": "all of it"}


@pytest.mark.parametrize(("kind", "kept"), [("model", True), ("checkpoint", False)])
def test_what_people_may_have_edited_stays_beside_what_replaces_it(tmp_path, kind, kept):
    path = own(tmp_path / "place", kind)
    for number in range(2):
        (path / "a.txt").write_text(f"edited {number}")
        own(path, kind)
    assert read_two(path) == ["ours", "ours"]
    assert names(tmp_path) == (["place", "place.changed-1", "place.changed-2"] if kept else ["place"])
    if kept:
        assert read_two(tmp_path / "place.changed-2") == ["edited 1", "ours"]


def test_what_is_ours_is_removed(tmp_path):
    assert remove_own(own(tmp_path / "model"), "model")
    assert names(tmp_path) == []


def test_what_a_killed_process_has_half_removed_is_still_ours(tmp_path, monkeypatch):
    """Killed before each of its removals in turn, it can be removed in the end."""
    real, left = Path.unlink, []

    def unlink(path, missing_ok=False):
        if left and left.pop():
            raise KeyboardInterrupt
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    for number in range(4):  # a.txt, sub/b.txt, the list and the marker
        left.clear()
        path = own(tmp_path / "model")
        left[:] = [True, *[False] * number]
        with pytest.raises(KeyboardInterrupt):
            remove_own(path, "model")
        assert path.exists()
        left.clear()
        assert remove_own(path, "model")
        assert names(tmp_path) == []


def test_a_writer_that_was_killed_between_its_two_renames_has_lost_nothing(tmp_path):
    path = own(tmp_path / "best", "best")
    os.rename(path, tmp_path / ".best.old")
    assert restore_interrupted(path) == path
    assert read_two(path) == ["ours", "ours"]
    os.rename(path, tmp_path / ".best.old")
    own(path, "best")
    assert names(tmp_path) == ["best"]


def test_a_writer_that_was_killed_while_it_marked_its_draft_stands_in_no_ones_way(tmp_path):
    draft = tmp_path / ".best.tmp"
    draft.mkdir()
    (draft / f".{MARKER}{DRAFT}0123abcd.tmp").write_text('{"spar')
    own(tmp_path / "best", "best")
    assert names(tmp_path) == ["best"]


def test_what_appears_while_it_is_written_is_left_as_it_is(tmp_path):
    def write() -> None:
        with atomic_directory(tmp_path / "model", "model") as draft:
            write_two(draft, "new")
            thesis(tmp_path / "model")

    with pytest.raises(UserError, match="did not write"):
        write()
    assert contents(tmp_path) == {"model/chapter.txt": "all of it"}


def test_a_signed_text_tells_whether_somebody_has_edited_it(tmp_path):
    path = tmp_path / "table.md"
    assert not is_signed(path)
    path.write_text(sign_text("# A table\n"))
    assert is_signed(path)
    assert has_valid_signature(path)
    path.write_text("my note\n" + path.read_text())
    assert is_signed(path)
    assert not has_valid_signature(path)
    move_aside(path)
    assert names(tmp_path) == ["table.md.changed-1"]
    path.write_text("# A table\n" + "of my own\n" * 1000)
    assert not is_signed(path)


# Damage


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: None, ""),
        (lambda path: (path / "a.txt").unlink(), "a.txt is missing"),
        (lambda path: (path / "a.txt").write_text("theirs"), "a.txt is not what was written (sha256)"),
        (lambda path: (path / "b.txt").touch(), "checksums.txt does not list b.txt"),
        (lambda path: (path / "checksums.txt").unlink(), "checksums.txt is missing"),
        (lambda path: (path / "checksums.txt").write_text(""), "checksums.txt does not list a.txt"),
        (lambda path: (path / "checksums.txt").write_text("a.txt\n"), "checksums.txt is damaged (the line 'a.txt' is "),
        (lambda path: (path / "checksums.txt").write_bytes(b"\xff"), "checksums.txt is not UTF-8 (byte 0)"),
    ],
)
def test_damage_is_told_in_words(tmp_path, change, told):
    path = own(tmp_path / "model")
    change(path)
    assert find_damage(path).startswith(told)
    assert bool(find_damage(path)) == bool(told)


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (b"", "is empty"),
        (b'{"a": ', "is not JSON (line 1, column 7: Expecting value)"),
        (b"\xff\xfe", "is not UTF-8 (byte 0)"),
        (b"[" * 100_000, "is nested too deep"),
        (b"1" * 5000, "is damaged (Exceeds the limit"),
        (b"{}", "has no 'key'"),
        (b"[]", "is damaged (list indices must be integers or slices, not str)"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named(tmp_path, contents, told):
    path = tmp_path / "x.json"
    path.write_bytes(contents)
    with pytest.raises(UserError) as caught, explain_read_errors(path, "Write it again."):
        json.loads(path.read_text(encoding="utf-8"))["key"]
    assert str(caught.value).startswith(f"{path} {told}")
    assert str(caught.value).endswith(". Write it again.")


def test_a_directory_in_the_place_of_a_file_and_none_at_all_are_named(tmp_path):
    for path, told in ((tmp_path, "is a directory, and should be a file"), (tmp_path / "none", "is missing")):
        with pytest.raises(UserError, match=told), explain_read_errors(path):
            path.read_text()


def test_errors_that_are_none_of_the_file_pass(tmp_path):
    with pytest.raises(RuntimeError, match="ours"), explain_read_errors(tmp_path):
        raise RuntimeError("ours")


@pytest.mark.parametrize("fallocate", [True, False])
def test_a_file_has_its_room_before_it_is_mapped(tmp_path, monkeypatch, fallocate):
    if not fallocate:  # as on macOS
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    path = tmp_path / "logits.npy"
    path.write_bytes(b"head")
    reserve_space(path, 10_000)
    assert path.stat().st_size == 10_000
    assert path.read_bytes()[:4] == b"head"


# At the same time


def test_only_one_process_is_at_work_on_a_directory(tmp_path):
    """The other one says that it waits, and goes on when the first is done, or dead."""
    holder = "import sys, time; from pathlib import Path; from sparse_xp.files.locks import file_lock\n"
    holder += "with file_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(sparse_xp.__file__).parents[1])},
    )
    assert other.stdout.readline() == "held\n"
    said = []

    def told(text):
        said.append(text)
        other.kill()

    with file_lock(tmp_path / "run", told):
        pass
    assert said == [f"{tmp_path}/run: another process is at work on it; waiting"]
    other.wait()


def test_files_are_as_readable_as_their_directory(tmp_path):
    """Some libraries write for the owner alone, and a deployment folder is used by others."""
    with atomic_directory(tmp_path / "new", "model") as draft:
        (draft / "private").touch(0o600)
    directory, file = tmp_path / "new", tmp_path / "new" / "private"
    assert file.stat().st_mode & 0o777 == directory.stat().st_mode & 0o666
