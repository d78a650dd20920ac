"""Separated columns of every kind: the file decides about separator, quotes and encoding, or the user does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparse_xp.data.readers import read_records
from sparse_xp.errors import UserError
from sparse_xp.files.text_format import TextFormat


def read(folder: Path, name: str, contents: str | bytes, **options: str) -> list[Any]:
    path = folder / name
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return read_records(path, arrow=True, text_format=TextFormat(**options))


TWO = [{"text": "one, two", "label": "01"}, {"text": "three", "label": "1_1"}]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
@pytest.mark.parametrize(
    "contents",
    [
        'text,label\n"one, two",01\nthree,1_1\n',
        "text;label\none, two;01\nthree;1_1\n",
        "text\tlabel\none, two\t01\nthree\t1_1",
        "text|label\r\none, two|01\r\nthree|1_1\r\n",
        "sep=;\ntext;label\none, two;01\nthree;1_1\n",
        'text, label\n"one, two", 01\nthree, 1_1\n',
        '"text";"label"\n"one, two";"01"\n"three";"1_1"\n',
        'text,label\r"one, two",01\rthree,1_1\r',
        "\ufefftext;label\none, two;01\n\n;\nthree;1_1\n;\n",
    ],
)
def test_the_file_decides_whatever_its_name(tmp_path, name, contents):
    assert read(tmp_path, name, contents) == TWO


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_of_encodings_are_read(tmp_path, encoding):
    rows = read(tmp_path, "t.csv", "text;label\ncaf\u00e9;1\n".encode(encoding))
    assert rows == [{"text": "caf\u00e9", "label": "1"}]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be"])
def test_other_encodings_are_named_with_the_line_and_taken_if_given(tmp_path, encoding):
    contents = "text;label\na;0\ncaf\u00e9;1\n".encode(encoding)
    line, advice = ("1", encoding) if "16" in encoding else ("3", "latin-1 \\(cp1252")
    with pytest.raises(UserError, match=rf"t\.csv, line {line}: .*data\.encoding={advice}"):
        read(tmp_path, "t.csv", contents)
    assert read(tmp_path, "t.csv", contents, encoding=encoding)[1] == {"text": "caf\u00e9", "label": "1"}
    with pytest.raises(UserError, match=r"t\.csv, line 1: (not|a NUL byte)"):
        read(tmp_path, "t.csv", b"\xff\x00\x01", encoding="utf-8" if "16" in encoding else "utf-16-le")


@pytest.mark.parametrize("told", [None, "latin-1", "iso-8859-15"])
def test_quotes_of_windows_are_no_control_characters(tmp_path, told):
    contents = "text,label\nfine,1\nIt\u2019s \u201cfine\u201d,0\n".encode("cp1252")
    with pytest.raises(UserError, match=r"t\.csv, line 3: .*data\.encoding=cp1252"):
        read(tmp_path, "t.csv", contents, **({"encoding": told} if told else {}))
    assert read(tmp_path, "t.csv", contents, encoding="cp1252")[1]["text"] == "It\u2019s \u201cfine\u201d"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_utf_8_is_not_read_as_another_encoding(tmp_path, mark):
    contents = f"{mark}text,label\nfine,1\ncaf\u00e9,0\n".encode()
    with pytest.raises(UserError, match=r"t\.csv, line [13]: this file is UTF-8, not latin-1\. Leave data\.encoding="):
        read(tmp_path, "t.csv", contents, encoding="latin-1")


def test_utf_16_that_is_cut_off_or_has_no_mark(tmp_path):
    with pytest.raises(UserError, match=r"t\.csv, line 2: it begins as UTF-16, and is not \(truncated data\)"):
        read(tmp_path, "t.csv", "\ufeffa,b\n1,2\n".encode("utf-16-le")[:-3])
    chinese = "a,b\n" + "\u4e2d\u6587\u6587\u672c" * 20 + ",1\n"
    for encoding in ("utf-16-le", "utf-16-be"):
        with pytest.raises(UserError, match=rf"line 1: a NUL byte; .*Write data\.encoding={encoding}"):
            read(tmp_path, "t.csv", chinese.encode(encoding))


@pytest.mark.parametrize("encoding", ["idna", "punycode", "unicode_escape", "rot13"])
def test_what_is_no_encoding_of_texts(encoding):
    with pytest.raises(ValueError, match=rf"data\.encoding={encoding}: expected an encoding of texts"):
        TextFormat(encoding=encoding)


def test_names_of_separators():
    found = [TextFormat(separator=name).separator for name in ("TAB", "Comma", "colon", "bar", "pipe")]
    assert found == ["\t", ",", ":", "|", "|"]


# Quotes


def test_unbalanced_quotes_are_signs_of_the_texts(tmp_path):
    contents = 'text\tlabel\n"hello\t1\nsaid "so"\t0\nbye"\t0\n"a" b\t2\n'
    texts = ['"hello', 'said "so"', 'bye"', '"a" b']
    assert [row["text"] for row in read(tmp_path, "t.tsv", contents)] == texts


def test_quotes_of_two_texts_do_not_join_the_lines_between_them(tmp_path):
    rows = read(tmp_path, "t.tsv", 'text\tlabel\n"hello\t1\nmiddle\t0\nbye"\t0\n')
    assert [row["text"] for row in rows] == ['"hello', "middle", 'bye"']


def test_a_quoted_text_may_have_lines_and_separators(tmp_path):
    rows = read(tmp_path, "t.csv", 'text,label\n"one,\ntwo ""3""\n",1\n"x" ,2\n'.replace(" ,2", ",2"))
    assert rows == [{"text": 'one,\ntwo "3"\n', "label": "1"}, {"text": "x", "label": "2"}]


def test_the_user_decides_about_quotes_and_separator(tmp_path):
    assert read(tmp_path, "t.csv", 'a,b\n"x",1\n', quoting="none") == [{"a": '"x"', "b": "1"}]
    assert read(tmp_path, "t.csv", 'a,b\n"x",1\n', quoting="minimal") == [{"a": "x", "b": "1"}]
    assert read(tmp_path, "t.csv", "a,b;c\n1,2;3\n", separator="semicolon") == [{"a,b": "1,2", "c": "3"}]
    assert read(tmp_path, "t.csv", "a~b\n1~2\n", separator="~") == [{"a": "1", "b": "2"}]
    with pytest.raises(
        UserError, match=r"t\.csv, line 2: unexpected end of data\. Close the quote .*data\.quoting=none"
    ):
        read(tmp_path, "t.csv", 'a,b\n"x,1\n', quoting="all")


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_text_may_be_long(tmp_path, quote):
    [row] = read(tmp_path, "t.csv", f"a,b\n{quote}{'x' * 140_000}{quote},1\n")
    assert row == {"a": "x" * 140_000, "b": "1"}


@pytest.mark.parametrize("text", ["a\u2028b\u2029c\x0b\x0c\x1c\x1d\x1e\x85d", "a\rb"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_only_a_line_feed_ends_a_row(tmp_path, text, quote):
    rows = read(tmp_path, "t.csv", f"text,label\n{quote}{text}{quote},1\n")
    assert rows == [{"text": text, "label": "1"}]


@pytest.mark.parametrize(
    ("contents", "texts"),
    [
        ('text,label\n"Hello, Bob\nThanks",pos\ngood,pos\nbad,neg\n', ["Hello, Bob\nThanks", "good", "bad"]),
        ('text;label\n"Hello; Bob\nThanks";1\nx;1\n', ["Hello; Bob\nThanks", "x"]),
        ('label,text\npos,"Hello Bob\nThanks, you"\nneg,bad\n', ["Hello Bob\nThanks, you", "bad"]),
        ('"text","label"\n"hello,1\nbye, 1","1"\n"fine","0"\n', ["hello,1\nbye, 1", "fine"]),
        ('"text"\t"label"\n"hello\t1\nbye"\t0\n"x"\t1\n', ["hello\t1\nbye", "x"]),
        ('text\tlabel\n"a\tb\nc"\tpos\n"x"\tneg\n', ["a\tb\nc", "x"]),
    ],
)
def test_a_text_of_two_lines_is_one_even_if_its_lines_could_be_rows(tmp_path, contents, texts):
    assert [row["text"] for row in read(tmp_path, "t.csv", contents)] == texts


@pytest.mark.parametrize(
    ("contents", "texts"),
    [
        ('text,label\n"hello,1\nbye",0\nx,1\n', ['"hello', 'bye"', "x"]),
        ('text\tlabel\n"Hello\tBob\nThanks"\tpos\ngood\tneg\n', ['"Hello', 'Thanks"', "good"]),
    ],
)
def test_quotes_that_could_be_either_are_asked_about(tmp_path, contents, texts):
    with pytest.raises(UserError, match=r"t\.csv, line 2: .*data\.quoting=minimal .*data\.quoting=none"):
        read(tmp_path, "t.csv", contents)
    assert [row["text"] for row in read(tmp_path, "t.csv", contents, quoting="none")] == texts
    assert len(read(tmp_path, "t.csv", contents, quoting="minimal")) == 2


def test_line_ends_within_quotes_stay_as_they_are(tmp_path):
    rows = read(tmp_path, "t.csv", 'text,label\r\n"a\r\nb\nc",1\r\nd,2\r\n')
    assert rows == [{"text": "a\r\nb\nc", "label": "1"}, {"text": "d", "label": "2"}]
    assert read(tmp_path, "t.csv", 'text\tlabel\r\n"a\t1\r\n') == [{"text": '"a', "label": "1"}]


def test_columns_of_one_name_matter_only_if_they_are_used(tmp_path):
    path = tmp_path / "t.csv"
    for contents in (",,text, label \n1,2,a,x\n", "text,label,,\na,x,,\n", "text,note,label,note\na,1,x,2\n"):
        path.write_text(contents)
        assert read_records(path, used=["text", "label"]) == [{"text": "a", "label": "x"}]
    with pytest.raises(UserError, match=r"line 1: two columns have the same name: text, note, label, note"):
        read_records(path, used=["text", "note"])
    with pytest.raises(UserError, match="two columns have the same name"):
        read_records(path)


@pytest.mark.parametrize("directive", ["sep=\t", "SEP=\t", '"sep=\t"', "sep=\t\r"])
def test_the_line_of_excel_names_any_separator(tmp_path, directive):
    assert read(tmp_path, "t.csv", f"{directive}\na;b\tc,d\n1\t2\n") == [{"a;b": "1", "c,d": "2"}]


# Errors


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        (
            "t.csv",
            "text;label\na;b;1\n",
            r"line 2: 3 fields, .* 2 columns: text, label\. Put quotes around .* semicolon",
        ),
        ("t.csv", "text,label\na,0\nb\n", r"line 3: 1 field, .* Write a separator after each cell"),
        ("t.csv", "text\na\nb, c\n", r"line 3: 2 fields, but the first line names 1 column: text"),
        ("t.tsv", 'text\tlabel\n"a\t1\nb\tc\t0\n', r"line 3: 3 fields.*quotes are read as signs of the texts"),
        ("t.csv", 'text,label\n"a, b",1\n"c,0\n"d",2\n', r"line 3: .* Close the quote that begins there"),
        ("t.csv", '"a","b"\na\rb,"1, 2"\n', r"line 2: a carriage return in a text without quotes\. Put quotes around"),
        ("t.csv", "a,a\n1,2\n", r"line 1: two columns have the same name: a, a"),
        ("t.csv", '"a","b"\n"1","x","y"\n"2","z","w"\n', r"line 1: .* names a, b, one column less than each row has"),
        ("t.csv", "# by Ada\na,b\n1,2\n", r"line 2: .*# by Ada\. Remove the first line if it is a comment"),
        ("t.csv", 'a,b\n"say \\"hi\\", all",1\n', r'line 2: \\" in a text in quotes.*Write two quotes \(""\)'),
        ("t.csv", 'a,b\n"say \\"hi\\" all",1\n"c",2\n', r'line 2: \\" in a text in quotes'),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, name, contents, message):
    with pytest.raises(UserError, match=rf"{name}, {message}"):
        read(tmp_path, name, contents)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("t.jsonl", {"separator": ","}, r"data\.separator=',' means nothing for .*t\.jsonl"),
        ("t.conll", {"quoting": "none"}, r"data\.quoting='none' means nothing for .*t\.conll"),
        ("t.conll", {"separator": ";"}, r"data\.separator=';': CoNLL text, as .*t\.conll, has tab or space"),
        ("t.parquet", {"encoding": "latin-1"}, r"data\.encoding='latin-1' means nothing for .*t\.parquet"),
    ],
)
def test_options_that_mean_nothing_for_a_format(tmp_path, name, options, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, name, '{"a": 1}\n', **options)
