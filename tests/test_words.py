"""``KEY=VALUE``."""

from __future__ import annotations

import pytest

from sparse_xp.errors import UserError
from sparse_xp.words import several, split, whole


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
