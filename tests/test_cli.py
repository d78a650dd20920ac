"""``KEY=VALUE``."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse_xp.cli import as_written, several, split, whole
from sparse_xp.errors import UserError


def test_values_may_hold_anything():
    assert split(["question=Is a=b?", "out="]) == {"question": "Is a=b?", "out": ""}


@pytest.mark.parametrize(
    ("words", "message"),
    [(["run"], "run: want KEY=VALUE. Did you mean 'run'"), (["ran=x"], "There is no 'ran='. Did you mean 'run'")],
)
def test_other_words(words, message):
    with pytest.raises(UserError, match=message):
        split(words, ("run", "out"))


def test_lists_and_numbers():
    assert several("[1, 32]") == several("1,32") == ["1", "32"]
    assert whole("batch", "32") == 32
    for value in ("0", "-1", "x", "1.5", ""):
        with pytest.raises(UserError, match=r"batch=.*: want a whole number"):
            whole("batch", value)


def test_paths_that_exist_are_taken_as_written(tmp_path, monkeypatch):
    """The directory of a run has ``,`` and ``=`` in its name, which Hydra would read as a sweep or not at all."""
    monkeypatch.chdir(tmp_path)
    for name in ("squad,tiny,seed=42", "plain", "it's (here)"):
        Path(name).mkdir()
    words = ["teacher.path=squad,tiny,seed=42", "+teacher.path=it's (here)", "teacher.path=plain", "seed=1,2", "-m"]
    assert as_written(words) == ["teacher.path='squad,tiny,seed=42'", r"+teacher.path='it\'s (here)'", *words[2:]]


def test_a_run_directory_may_be_new():
    assert as_written(["hydra.run.dir=new,seed=1", "hydra.run.dir='a=b'"]) == [
        "hydra.run.dir='new,seed=1'",
        "hydra.run.dir='a=b'",
    ]
