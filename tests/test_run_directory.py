"""A run's directory: nothing of the user's in it is written over, and its state can be read off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparse_xp import run_directory
from sparse_xp.errors import UserError
from sparse_xp.files.directories import atomic_directory
from sparse_xp.files.ownership import read_marker, write_marker
from sparse_xp.files.writing import DRAFT
from sparse_xp.run_directory import (
    CHECKPOINTS,
    DIRECTORIES,
    FILES,
    claim_run,
    foreign_files,
    remove_temporary_files,
    run_state,
    unclaim_run,
    write_error,
)


def contents(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): path.read_text() for path in sorted(place.rglob("*")) if path.is_file()}


def whole(path: Path, kind: str) -> None:
    with atomic_directory(path, kind) as draft:
        (draft / "file").write_text(kind)


@pytest.mark.parametrize("name", [*FILES, *DIRECTORIES, CHECKPOINTS])
def test_a_file_of_the_users_where_a_run_would_write_is_refused(tmp_path, name):
    place = tmp_path / "project"
    if "." in name:
        place.mkdir()
        (place / name).write_text("mine")
    else:
        (place / name).mkdir(parents=True)
        (place / name / "chapter.txt").write_text("mine")
    before = contents(tmp_path)
    for given in (place, Path(f"{place}/"), Path(os.path.relpath(place))):
        with pytest.raises(UserError, match=f"has {name}, not written by a run of sparse_xp.* hydra.run.dir="):
            claim_run(given)
    write_error(place, "trace", "command")
    clear_if_claimed(place)
    assert contents(tmp_path) == before


def clear_if_claimed(place: Path) -> None:
    """As a run does it: first whose it is, then what to remove."""
    if not foreign_files(place):
        remove_temporary_files(place)


def test_a_link_to_what_is_the_users_is_refused_too(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(tmp_path / "thesis")
    with pytest.raises(UserError, match="run has model"):
        claim_run(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(UserError, match="link has model"):
        claim_run(tmp_path / "link")


def test_files_of_other_names_may_lie_beside_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    claim_run(tmp_path)
    claim_run(tmp_path)
    assert contents(tmp_path)["notes.txt"] == "mine"
    assert read_marker(tmp_path) == "run"


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="run has a file in its place"):
        claim_run(tmp_path / "run")


def test_a_directory_of_the_users_in_a_run_is_refused_before_it_trains_again(tmp_path):
    claim_run(tmp_path)
    whole(tmp_path / "model", "model")
    claim_run(tmp_path)
    (tmp_path / "model" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="has model, not written by a run"):
        claim_run(tmp_path)


def test_a_run_that_never_began_leaves_nothing(tmp_path):
    claim_run(tmp_path / "run")
    unclaim_run(tmp_path / "run")
    assert os.listdir(tmp_path) == []
    claim_run(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").touch()
    unclaim_run(tmp_path / "run")
    assert os.listdir(tmp_path / "run") == ["notes.txt"]  # and the next command looks again what is whose
    unclaim_run(tmp_path / "none")
    claim_run(tmp_path / "run")
    (tmp_path / "run" / "history.jsonl").touch()
    unclaim_run(tmp_path / "run")
    assert read_marker(tmp_path / "run") == "run"


def test_what_looks_like_a_rest_of_ours_and_has_the_users_files_stays(tmp_path):
    claim_run(tmp_path)
    for name, kind in ((".backup.old", "model"), (".deployment.old", "deployment")):
        whole(tmp_path / name, kind)
        (tmp_path / name / "notes.txt").write_text("mine")
    (tmp_path / ".keep.tmp").mkdir()
    for name in ("error.txt", "trained.json"):
        (tmp_path / name).write_text("mine")
    (tmp_path / CHECKPOINTS / "step-old").mkdir(parents=True)
    remove_temporary_files(tmp_path)
    assert (tmp_path / ".backup.old" / "notes.txt").exists()
    assert (tmp_path / ".deployment.old" / "notes.txt").exists()
    assert (tmp_path / ".keep.tmp").exists()
    assert (tmp_path / "error.txt").read_text() == (tmp_path / "trained.json").read_text() == "mine"
    assert (tmp_path / CHECKPOINTS / "step-old").exists()
    write_error(tmp_path, "trace", "command")
    assert (tmp_path / "error.txt.changed-1").read_text() == "mine"


def test_a_run_of_an_earlier_version_is_known_by_its_configuration(tmp_path):
    (tmp_path / "config.yaml").write_text("config_hash: 0123456789\n")
    (tmp_path / "history.jsonl").touch()
    assert run_state(tmp_path, "0123456789") == "interrupted"
    claim_run(tmp_path)
    assert read_marker(tmp_path) == "run"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("config_hash: mine\n")
    with pytest.raises(UserError, match=r"other has config\.yaml, not written by a run"):
        claim_run(tmp_path / "other")


def test_what_is_kept_as_something_else_is_no_place_for_a_run(tmp_path):
    whole(tmp_path / "entry", "cache")
    with pytest.raises(UserError, match=r"entry is, or is inside of, a cache that sparse_xp keeps"):
        claim_run(tmp_path / "entry")
    with pytest.raises(UserError, match="is inside of, a cache"):
        claim_run(tmp_path / "entry" / "new")


def test_a_begun_run_without_its_configuration_is_damaged(tmp_path):
    claim_run(tmp_path)
    (tmp_path / "result.json").touch()
    with pytest.raises(UserError, match=r"config\.yaml is missing\. Restore it, or move .* away"):
        run_directory.find_finished(tmp_path, "abc")


def test_clear_removes_what_only_an_unfinished_run_needs_and_nothing_of_the_users(tmp_path):
    claim_run(tmp_path)
    whole(tmp_path / "best", "best")
    for step in ("step-00000001", "step-00000002"):
        whole(tmp_path / CHECKPOINTS / step, "checkpoint")
    (tmp_path / CHECKPOINTS / "step-00000002" / "notes.txt").write_text("mine")
    write_error(tmp_path, "an earlier attempt", "command")
    remove_temporary_files(tmp_path)
    assert sorted(contents(tmp_path)) == [
        *(".sparse_xp", *(f"checkpoints/step-00000002/{name}" for name in (".sparse_xp", "checksums.txt", "file"))),
        "checkpoints/step-00000002/notes.txt",
    ]
    (tmp_path / CHECKPOINTS / "step-00000002" / "notes.txt").unlink()
    for stale, kind in (
        (".best.old", "best"),
        (".model.tmp", "model"),
        ("checkpoints/.step-00000003.tmp", "checkpoint"),
    ):
        (tmp_path / stale).mkdir()
        write_marker(tmp_path / stale, kind)
    (tmp_path / f".report.md{DRAFT}0123abcd.tmp").write_text("half")
    remove_temporary_files(tmp_path)
    assert sorted(contents(tmp_path)) == [".sparse_xp"]
    assert not (tmp_path / CHECKPOINTS).exists()


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, "to do"),
        ({"config.yaml": "config_hash: abc"}, "to do"),
        ({"config.yaml": "config_hash: abc", "history.jsonl": ""}, "interrupted"),
        ({"config.yaml": "config_hash: other", "history.jsonl": ""}, "foreign"),
        ({"config.yaml": "config_hash: other"}, "to do"),
        ({"error.txt": "x"}, "failed"),
        ({"config.yaml": "config_hash: abc", "history.jsonl": "", "error.txt": "x"}, "failed"),
        ({"config.yaml": "config_hash: abc", "result.json": "", "error.txt": "x"}, "finished"),
        ({"config.yaml": "config_hash: other", "result.json": ""}, "foreign"),
    ],
)
def test_the_state_of_a_run(tmp_path, files, found):
    claim_run(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert run_state(tmp_path, "abc") == found


def test_files_that_no_run_wrote_are_foreign(tmp_path):
    (tmp_path / "report.md").write_text("mine")
    assert run_state(tmp_path, "abc") == "foreign"


@pytest.mark.parametrize("text", [b"", b"[]", b"a: 1", b"\xff", b"a: [", b"[" * 5000, b"config_hash: {a: "])
def test_a_damaged_configuration_is_named(tmp_path, text):
    claim_run(tmp_path)
    (tmp_path / "config.yaml").write_bytes(text)
    (tmp_path / "history.jsonl").touch()
    with pytest.raises(UserError, match=r"config\.yaml .*Restore it, or move .* away"):
        run_directory.find_finished(tmp_path, "abc")
