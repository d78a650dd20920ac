"""Files that are no rows of text: what they are, and what to do."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest

from sparse_xp.data.corpus import read_corpus
from sparse_xp.data.readers import read_records
from sparse_xp.errors import UserError
from sparse_xp.files.text_format import TextFormat


def zipped(*names: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, "text,label\n")
    return held.getvalue()


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.txt", "t.parquet"])
@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (gzip.compress(b"text,label\n"), "packed by gzip. Unpack it"),
        (zipped("t.csv"), "packed by zip. Unpack it"),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "a spreadsheet. Save the table as CSV"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Run git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page, not the file itself. Fetch"),
    ],
    ids=["gzip", "zip", "spreadsheet", "git-lfs", "web page"],  # bytes as an id would have the time of their packing
)
def test_first_bytes_tell_what_a_file_is(tmp_path, name, contents, message):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(UserError, match=rf"{name} is .*{message}"):
        read_records(tmp_path / name)
    if name == "t.txt":
        with pytest.raises(UserError, match=rf"{name} is .*{message}"):
            read_corpus(tmp_path / name, "text", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t.csv.gz", "'.gz', .* Unpack it"),
        ("t.xlsx", "'.xlsx', .* Save the table as CSV"),
        ("t.tab", "'.tab', .* Name it .csv or .tsv"),
        ("t.psv", "'.psv', .* Name it .csv or .tsv"),
        ("t.iob2", "'.iob2', .* Name it .conll"),
        ("t.foo", "'.foo', .* Name it by its format"),
        ("t", "a name without an ending"),
    ],
)
def test_other_endings_of_names(tmp_path, name, message):
    (tmp_path / name).write_text("text,label\na,1\n")
    with pytest.raises(UserError, match=message):
        read_records(tmp_path / name)


def test_a_link_to_nowhere(tmp_path):
    (tmp_path / "t.csv").symlink_to("gone.csv")
    with pytest.raises(UserError, match=r"No file .*t\.csv: it is a link to gone\.csv, which does not exist"):
        read_records(tmp_path / "t.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_documents_in_another_encoding_than_was_told(tmp_path, encoding):
    (tmp_path / "t.txt").write_bytes("fine\n\u2019caf\u00e9\u2019\n".encode(encoding))
    with pytest.raises(UserError, match=r"t\.txt, line 2: (this file is UTF-8|.*Write data\.encoding=cp1252)"):
        read_corpus(tmp_path / "t.txt", "text", tmp_path, text_format=TextFormat(encoding="latin-1"))
