"""A text a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse_xp.data.limits import Limits
from sparse_xp.data.text_lines import read_text_lines
from sparse_xp.errors import UserError
from sparse_xp.files.text_format import TextFormat


def written(directory: Path, content: bytes) -> Path:
    path = directory / "texts.txt"
    path.write_bytes(content)
    return path


def test_blank_lines_are_left_out_and_places_are_those_of_the_file(tmp_path: Path):
    rows = read_text_lines(written(tmp_path, "\ufeffFirst.\r\n\r\n  Second one \r\n\n".encode()), "text")

    assert rows["text"] == ["First.", "Second one"]
    assert rows.place(1) == f"{tmp_path}/texts.txt, line 3"


def test_another_encoding_is_read_when_it_is_named(tmp_path: Path):
    path = written(tmp_path, "Käse\n".encode("latin-1"))

    with pytest.raises(UserError, match="line 1: not UTF-8"):
        read_text_lines(path, "text")
    assert read_text_lines(path, "text", text_format=TextFormat(None, None, "latin-1"))["text"] == ["Käse"]


def test_a_separator_means_nothing(tmp_path: Path):
    with pytest.raises(UserError, match=r"data\.separator= means nothing"):
        read_text_lines(written(tmp_path, b"a\tb\n"), "text", text_format=TextFormat("tab", None, None))


def test_more_rows_than_allowed_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="more than 2 rows"):
        read_text_lines(written(tmp_path, b"a\nb\nc\n"), "text", Limits(rows=2))
