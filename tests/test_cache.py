"""A cache: what is in it is checked, what is damaged is made again, and what is not its own is kept."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from sparse_xp.cache import ensure_cached
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import CHECKSUMS, MARKER
from sparse_xp.files.ownership import write_marker


def write(draft: Path) -> None:
    (draft / "rows.arrow").write_text("rows")


def broken(draft: Path) -> None:
    raise AssertionError("made again")


def test_an_entry_is_made_once(tmp_path):
    assert not ensure_cached(tmp_path / "features" / "one", write)
    assert ensure_cached(tmp_path / "features" / "one", broken)


def unlink_marker(path: Path) -> None:
    (path / MARKER).unlink()
    (path / "rows.arrow").write_text("other")


def replace_with_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("mine")


#: damages, and whether what was there is kept, since it need not be the cache's own
DAMAGES = {
    "a file is missing": (lambda path: (path / "rows.arrow").unlink(), False),
    "a file is empty": (lambda path: (path / "rows.arrow").write_text(""), False),
    "a file has the same size": (lambda path: (path / "rows.arrow").write_text("ROWS"), False),
    "a directory in its place": (lambda path: ((path / "rows.arrow").unlink(), (path / "rows.arrow").mkdir()), False),
    "no list": (lambda path: (path / CHECKSUMS).unlink(), True),
    "an empty list": (lambda path: (path / CHECKSUMS).write_text(""), True),
    "no marker": (unlink_marker, True),
    "another file": (lambda path: (path / "notes.txt").write_text("mine"), True),
    "a file for the entry": (replace_with_file, True),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_entry_is_made_again_and_a_line_says_so(tmp_path, capsys, name):
    change, kept = DAMAGES[name]
    path = tmp_path / "one"
    ensure_cached(path, write)
    change(path)
    assert not ensure_cached(path, write)
    assert (path / "rows.arrow").read_text() == "rows"
    assert f"{path} is damaged" in (said := capsys.readouterr().out)
    assert (tmp_path / "one.damaged-1").exists() == kept
    assert ("one.damaged-1" in said) == kept
    assert ensure_cached(path, broken)


def test_an_empty_directory_is_filled(tmp_path, capsys):
    (tmp_path / "one").mkdir()
    assert not ensure_cached(tmp_path / "one", write)
    assert capsys.readouterr().out == ""


def test_a_warm_cache_need_not_be_writable(tmp_path, monkeypatch):
    ensure_cached(tmp_path / "one", write)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))

    for name in ("mkdir", "open", "rename", "replace"):
        monkeypatch.setattr(os, name, refuse)
    assert ensure_cached(tmp_path / "one", broken)
    with pytest.raises(UserError, match=r"two cannot be written \(permission denied\)\. Give data\.cache="):
        ensure_cached(tmp_path / "two", write)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_cache_that_takes_nothing_is_named(tmp_path, number):
    def refuse(draft: Path) -> None:
        raise OSError(number, os.strerror(number), str(draft))

    with pytest.raises(UserError, match=r"Give data\.cache= a directory of your own"):
        ensure_cached(tmp_path / "one", refuse)


def test_a_file_where_the_cache_should_be_is_named(tmp_path):
    (tmp_path / "cache").write_text("mine")
    with pytest.raises(UserError, match=r"cache/one cannot be written .*data\.cache="):
        ensure_cached(tmp_path / "cache" / "one", write)
    assert (tmp_path / "cache").read_text() == "mine"


def test_a_full_disk_names_the_cache_and_leaves_nothing(tmp_path):
    def fill(draft: Path) -> None:
        (draft / "rows.arrow").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match=r"while writing .*one\. Make room, or give data\.cache= on another disk"):
        ensure_cached(tmp_path / "one", fill)
    assert os.listdir(tmp_path) == [".locks"]


def test_what_a_killed_process_was_making_is_cleared_away(tmp_path):
    draft = tmp_path / ".one.tmp"
    draft.mkdir()
    write_marker(draft, "cache")
    (draft / "tmpx7").write_text("half")
    assert not ensure_cached(tmp_path / "one", write)
    assert sorted(os.listdir(tmp_path)) == [".locks", "one"]
