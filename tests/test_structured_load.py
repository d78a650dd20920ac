"""``sparse_xp.structured`` without the library that ``sentence_transformer`` needs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sparse_xp import structured
from sparse_xp.errors import UserError


def test_without_sentence_transformers_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # as if it were not installed

    with pytest.raises(UserError, match=r"pip install 'sparse-xp\[sentence-transformers\]'"):
        structured.sentence_transformer(tmp_path)
