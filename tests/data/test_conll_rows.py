"""CoNLL text: what a word, a tag, a comment and the end of a sentence are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparse_xp.data.readers import read_records, read_rows
from sparse_xp.errors import UserError
from sparse_xp.files.text_format import TextFormat


def sentences(folder: Path, text: str, **options: str) -> list[list[tuple[str, str]]]:
    """The words and tags of each sentence."""
    (folder / "t.conll").write_bytes(text.encode())
    rows: list[Any] = read_records(folder / "t.conll", text_format=TextFormat(**options))
    return [list(zip(row["tokens"], row["tags"], strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10\xa0000 O\nkm\u2028h\u3000x O\n", [["10\xa0000", "km\u2028h\u3000x"]]),  # no separators of the format
        ("a\x0bb\x0cc\x1cd\x85e O\n", [["a\x0bb\x0cc\x1cd\x85e"]]),
        ("New York\tO\nis\tO\n", [["New York", "is"]]),  # tabs alone cut, if each line has one
        ("a  \t NN \t O \n", [["a"]]),
        ("a O\r\n \t \r\nb O", [["a"], ["b"]]),  # a line of blanks is blank, the last sentence needs none after it
        ("a O\rb O\r\rc O\r", [["a", "b"], ["c"]]),
        ("-DOCSTART- -X- -X- O\n\na NN X O\n-DOCSTART- O\nb NN X O\n", [["a"], ["b"]]),
        ("# id 5\na O\n\n# sent_id = 7\n# text = b\nb O\n", [["a"], ["b"]]),
        ("# id\na O\n# b c d\nb O\n", [["a", "b"]]),
        ("#begin document (x)\na O\n#end document\n", [["a"]]),
        ("# O\na O\n# B-X\n#tag O\n", [["#", "a", "#", "#tag"]]),  # words with a tag
        ("# NN B-NP O\na NN B-NP O\n", [["#", "a"]]),
        ("# text = His blood type is O\nHis O\n\n# The type is O\na O\n", [["His"], ["a"]]),
        ("# text = O\na x y O\n", [["a"]]),
        ("#ff B-PER\n#yy O\n", [["#ff", "#yy"]]),
        ("1 O\n2 O\n3 O\n", [["1", "2", "3"]]),
        ("2 NN O\n3 NN O\n4 NN O\n", [["2", "3", "4"]]),
    ],
)
def test_words(tmp_path, text, words):
    assert [[word for word, _ in sentence] for sentence in sentences(tmp_path, text)] == words


def test_the_separator_may_be_given(tmp_path):
    assert sentences(tmp_path, "a\tb O\nc\td O\n", separator="space") == [[("a", "O"), ("c", "O")]]
    assert sentences(tmp_path, "# x\tO\nb\tO\n", separator="tab") == [[("# x", "O"), ("b", "O")]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a O\nb\n", r"line 2: 'b' has no tag; expected a word, white space and its tag"),
        ("a\tO\n\tO\n", r"line 2: no word before the tag 'O'"),
        ("a NN B-NP O\nb NN B-NP\nc NN B-NP O\n", r"line 2: 3 columns, and most lines have 4"),
        ("New York\tO\nb O\nc\tO\n", r"line 2: 'b O' has no tab, which most lines have"),
        (
            "1\tHis\tO\n2\ta\tO\n3-4\tx\tO\n3\tx\tO\n\n1\tb\tO\n",
            r"line 1: the first column has the numbers of the words",
        ),
        ("d/1 a O\nd/1 b O\nd/1 c O\n\nd/2 e O\n", r"line 1: the first column has 'd/1' for all words of a sentence"),
    ],
)
def test_lines_that_are_no_word_with_a_tag(tmp_path, text, message):
    with pytest.raises(UserError, match=rf"t\.conll, {message}"):
        sentences(tmp_path, text)


def test_each_word_has_its_line(tmp_path):
    (tmp_path / "t.conll").write_text("# id\na O\nb O\n\n\nc O\n")
    rows = read_rows(tmp_path / "t.conll")
    assert rows.lines == [[2, 3], [6]]
    assert [rows.place(0, 1), rows.select([1]).place(0)] == [f"{tmp_path}/t.conll, line {n}" for n in (3, 6)]
