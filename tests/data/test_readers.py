"""Every kind of damage to a file of rows is one error in words that names the file, and so is too large a file."""

from __future__ import annotations

import json
import os
import re
import resource
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from sparse_xp.config import result_hash
from sparse_xp.data.corpus import _documents, files_fingerprint, read_corpus
from sparse_xp.data.limits import Limits, Meter
from sparse_xp.data.parquet_footer import chunks_of
from sparse_xp.data.readers import read_file, read_records
from sparse_xp.data.text_files import read_text
from sparse_xp.errors import UserError
from sparse_xp.settings import Data
from sparse_xp.tasks import QuestionAnswering, TextClassification, TokenClassification
from sparse_xp.tasks.rows import load_rows
from tests.fuzz_rows import ROWS, damaged_files, parquet, whole_files
from tests.runs import configure

TEXTS = (".json", ".jsonl", ".csv", ".tsv", ".conll", ".txt")


def outcomes(path: Path) -> list[str]:
    """The message of each way to read a file, an empty one for rows. Any other error passes."""
    found = []
    for read in (read_file, read_records, lambda path: list(_documents(path, "text", Meter(Limits())))):
        try:
            rows = read(path)
            found.append("" if len(rows) else "rows are none")
        except UserError as error:
            found.append(str(error))
    return found


# Damage


@pytest.mark.parametrize(("suffix", "contents"), whole_files())
def test_whole_files_are_read(tmp_path, suffix, contents):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(contents)
    assert read_file(path).to_list() == read_records(path)
    if suffix == ".parquet":
        assert read_records(path) == ROWS
        assert list(_documents(path, "text", Meter(Limits()))) == [row["text"] for row in ROWS]


BYTES = {
    "empty": b"",
    "white space": b" \n\n ",
    "random": bytes(range(128, 256)),
    "NUL": b"a,b\n\0,1\n",
    "not UTF-8": b"text\tO\ncaf\xe9\tO\n",
    "UTF-16 without a mark": "text,label\na,1\n".encode("utf-16-le"),
    "half of UTF-16": "\ufefftext,label\na,1\n".encode("utf-16")[:-1],
    "parquet": parquet(ROWS),
    "its magic": b"PAR1PAR1",
    "magic and a length": b"PAR1\xff\xff\xff\x7fPAR1",
}


@pytest.mark.parametrize("suffix", [*TEXTS, ".parquet"])
@pytest.mark.parametrize("damage", BYTES)
def test_bytes_that_are_no_rows(tmp_path, suffix, damage):
    if (suffix, damage) == (".parquet", "parquet"):
        return
    path = tmp_path / f"t{suffix}"
    path.write_bytes(BYTES[damage])
    for message in outcomes(path)[:2]:
        assert str(path) in message


@pytest.mark.parametrize("suffix", [*TEXTS, ".parquet"])
def test_what_is_no_file(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"broken{suffix}").symlink_to("nowhere")
    for name, told in [
        ("folder", "is a directory"),
        ("pipe", "is no file on a disk"),
        ("none", "No file"),
        ("x" * 300, ""),
    ]:
        for message in outcomes(tmp_path / f"{name}{suffix}"):
            assert f"{name}{suffix}" in message
            assert told in message
    assert all("No file" in message for message in outcomes(tmp_path / f"broken{suffix}"))


@pytest.mark.parametrize("name", ["t.json", "t.csv", "t.txt", "t.parquet"])
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_bytes(dict(whole_files())[path.suffix])

    def refuse(place: Any, *arguments: Any, **keywords: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", refuse)
    for message in outcomes(path):
        assert message.startswith(f"{path} cannot be read: permission denied")
    with pytest.raises(UserError, match="cannot be read: permission denied"):
        files_fingerprint(path)


DEEP = "[" * 1200 + "]" * 1200
JSON = [
    (f'{{"text": {DEEP}}}', "nested deeper than 30"),
    ('{"text": ' + "[" * 40 + "]" * 40 + "}", r"column 'text': lists and objects are nested deeper than 30"),
    ('{"text": ' + '{"a":' * 2000 + "1" + "}" * 2000 + "}", "nested deeper than 30"),
    (f'{{"text": {"9" * 5000}}}', "Exceeds the limit"),
    ('{"text": 18446744073709551616}', "column 'text': a number beyond 64 bits"),
    ('{"text": "a \\ud83d b"}', r"column 'text': half of a character \(\\\\ud83d\)"),
    ('{"text": [{"deep": ["\\uDE00"]}]}', r"column 'text': half of a character"),
    ('{"text": [{"\\ud83d": 1}]}', r"column 'text': half of a character"),
    ('{"\\ud83d": 1}', "the name .* has half of a character"),
    ("{}", "it is empty"),
    ('"text"', "is a text|not a text"),
    ('{"text": "a"', "no JSON"),
    ('{"text": "a\0"}', "a NUL byte"),
]


@pytest.mark.parametrize(("row", "message"), JSON)
def test_json_that_cannot_be_held(tmp_path, row, message):
    message = message.replace(r"\\\\", r"\\")
    (tmp_path / "t.json").write_text(f'[{{"text": "a"}},\n{row}]')
    (tmp_path / "t.jsonl").write_text(f'{{"text": "a"}}\n{row}\n')
    for name, where in [("t.json", r"row 1|line 2|t\.json:"), ("t.jsonl", "line 2")]:
        for told in outcomes(tmp_path / name)[:1]:
            assert re.search(rf"{name}.*({message})", told, re.DOTALL), told
            assert re.search(where, told), told
            assert len(told) <= 2100


def test_a_whole_character_of_two_halves_is_one(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "\\ud83d\\ude00"}\n')
    assert read_records(tmp_path / "t.jsonl") == [{"text": "\U0001f600"}]


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.tsv"])
def test_only_a_line_feed_ends_a_line(tmp_path, name):
    text = "a\u2028b\x85c"
    tab = "," if name == "t.csv" else "\t"
    contents = (
        json.dumps({"text": text, "label": 1}, ensure_ascii=False)
        if name == "t.jsonl"
        else f"text{tab}label\n{text}{tab}1"
    )
    (tmp_path / name).write_bytes(f"{contents}\r\n".encode())
    assert read_records(tmp_path / name) == [{"text": text, "label": 1 if name == "t.jsonl" else "1"}]


def test_columns_that_only_later_rows_have_are_kept(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    assert read_file(tmp_path / "t.jsonl").to_list() == [{"a": 1, "b": None}, {"a": None, "b": 2}]


@pytest.mark.parametrize(
    ("rows", "column", "row"),
    [
        ([{"a": 1, "b": 1}] * 9 + [{"a": 1, "b": "x"}] + [{"a": 1, "b": 1}] * 9, "b", 9),
        ([{"a": [1]}, {"a": 1}], "a", 1),
        ([{"a": {"b": 1}}, {"a": {"b": "x"}}, {"a": None}], "a", 1),
    ],
)
def test_the_first_value_of_another_type(tmp_path, rows, column, row):
    (tmp_path / "t.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=rf"t\.json: column '{column}' is not of one type in all rows: row {row} "):
        read_file(tmp_path / "t.json")


def test_lines_of_empty_cells_are_as_good_as_none(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,1\n,\n\nb,0\n,\n,\n")
    assert read_records(tmp_path / "t.csv") == [{"text": "a", "label": "1"}, {"text": "b", "label": "0"}]


# Parquet


@pytest.mark.parametrize("way", [{"compression": "zstd"}, {"compression": "none", "use_dictionary": False}])
def test_a_parquet_file_with_damage_anywhere(tmp_path, way):
    contents = parquet(ROWS, **way)
    path = tmp_path / "t.parquet"
    for place in range(0, len(contents), 41):
        path.write_bytes(contents[:place] + bytes([contents[place] ^ 0x55]) + contents[place + 1 :])
        outcomes(path)
        path.write_bytes(contents[:place])
        assert all(str(path) in message for message in outcomes(path))


def test_a_page_is_checked_by_its_sum(tmp_path):
    contents = parquet([{"text": "Ada wrote it."}], compression="none", write_page_checksum=True)
    (tmp_path / "t.parquet").write_bytes(contents.replace(b"Ada wrote", b"Bob wrote"))
    assert all("t.parquet is damaged" in message for message in outcomes(tmp_path / "t.parquet"))


def test_a_text_that_is_not_utf_8_is_named_by_its_row(tmp_path):
    texts = [f"text {i}".encode() for i in range(200)]
    texts[150] = b"caf\xe9"
    table = pyarrow.table({"id": list(range(200)), "text": pyarrow.array(texts).view(pyarrow.string())})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    for message in outcomes(tmp_path / "t.parquet"):
        assert re.search(r"t\.parquet, row 150, column 'text': .*UTF", message)


def test_a_parquet_file_with_fewer_rows_than_it_says(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    path.write_bytes(parquet(ROWS))
    batches = pyarrow.parquet.ParquetFile.iter_batches
    monkeypatch.setattr(
        pyarrow.parquet.ParquetFile, "iter_batches", lambda *a, **k: (batch.slice(0, 3) for batch in batches(*a, **k))
    )
    with pytest.raises(UserError, match=r"it says that it has 12 rows, and has 3"):
        read_file(path)


def test_parquet_columns_that_cannot_be_used(tmp_path):
    path = tmp_path / "t.parquet"
    pairs = pyarrow.array([[("k", "v")]], pyarrow.map_(pyarrow.string(), pyarrow.string()))
    pyarrow.parquet.write_table(pyarrow.table({"text": pairs}), path)
    with pytest.raises(UserError, match=r"the library datasets takes no such columns"):
        read_file(path)
    with pytest.raises(UserError, match=r"column 'text' has values of type map.*, expected texts"):
        read_corpus(path, "text", tmp_path)
    pyarrow.parquet.write_table(pyarrow.table([["a"], ["b"]], names=["text", "text"]), path)
    assert all("two columns have the same name" in message for message in outcomes(path))


def test_a_schema_that_lies(tmp_path):
    table = pyarrow.table({"text": ["a"], "label": [1]})
    for lie in (
        b"{",
        b"[]",
        b'{"info": 5}',
        b'{"info": {"features": {"text": {"dtype": "int8", "_type": "Value"}}}}',
        b"[" * 5000,
    ):
        path = tmp_path / "t.parquet"
        pyarrow.parquet.write_table(table.replace_schema_metadata({b"huggingface": lie}), path)
        outcomes(path)


def test_the_account_of_a_file_is_read_as_pyarrow_reads_it(tmp_path):
    for number, (suffix, contents) in enumerate(whole_files()):
        if suffix == ".parquet":
            path = tmp_path / f"{number}.parquet"
            path.write_bytes(contents)
            metadata = pyarrow.parquet.read_metadata(path)
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            told = [group.column(i) for group in groups for i in range(group.num_columns)]
            expected = [(c.path_in_schema, c.physical_type, c.num_values, c.total_uncompressed_size) for c in told]
            found = chunks_of(path, ["id", "text", "label", "answers"])
            assert [(chunk.path, chunk.kind, chunk.values, chunk.size) for chunk in found] == expected


def test_any_damage_is_rows_or_an_error_in_words(tmp_path):
    for name, contents in damaged_files(seed=0, count=300):
        path = tmp_path / name
        path.write_bytes(contents)
        for message in outcomes(path):
            assert not message or str(path) in message or message == "rows are none"


def test_the_same_seed_gives_the_same_files():
    assert list(damaged_files(1, 20)) == list(damaged_files(1, 20)) != list(damaged_files(2, 20))


# Columns of another type


TASKS: dict[str, Any] = {
    "text": TextClassification(name="mine", dataset=None, folder="mine", text="text"),
    "qa": QuestionAnswering(name="mine", dataset=None, folder="mine"),
    "tokens": TokenClassification(name="mine", dataset=None, folder="mine", tags="tags"),
}
ASKED = {"id": "1", "question": "Who?", "context": "Ada", "answers": {"text": ["Ada"], "answer_start": [0]}}


@pytest.mark.parametrize(
    ("task", "row", "column"),
    [
        ("text", {"text": "a", "label": [1]}, "column label"),
        ("text", {"text": "a", "label": {"a": 1}}, "column label"),
        ("qa", ASKED | {"id": ["1"]}, "column id"),
        ("qa", ASKED | {"question": 5}, "column question"),
        ("qa", ASKED | {"context": ["Ada"]}, "column context"),
        ("qa", ASKED | {"answers": {"text": ["Ada"], "answer_start": []}}, "row 0, column answers"),
        ("tokens", {"tokens": 5, "tags": ["O"]}, "column tokens"),
        ("tokens", {"tokens": ["Ada"], "tags": 0.5}, "column tags"),
        ("tokens", {"tokens": [1], "tags": [0]}, "column tokens"),
    ],
)
def test_a_column_of_another_type_than_the_task_needs(tmp_path, task, row, column):
    (tmp_path / "t.json").write_text(json.dumps([row]))
    data = Data(train=str(tmp_path / "t.json"), validation=str(tmp_path / "t.json"))
    for train in (True, False):
        with pytest.raises(UserError, match=rf"task mine: .*t\.json.*{column}"):
            load_rows(TASKS[task], data, train)


# Limits


def bomb(path: Path, nested: bool) -> int:
    """Write some hundred bytes that unpack to 2 GB: one text in 20,000 rows, or as often in one row."""
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 20_000, pyarrow.int32()), ["x" * 100_000])
    column = pyarrow.ListArray.from_arrays(pyarrow.array([0, 20_000], pyarrow.int32()), texts) if nested else texts
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), path, compression="zstd", store_schema=False)
    return path.stat().st_size


@pytest.mark.parametrize("nested", [False, True])
def test_a_small_file_that_unpacks_to_much_is_not_unpacked(tmp_path, nested):
    path = tmp_path / "t.parquet"
    assert bomb(path, nested) < 10_000
    limits = Limits(bytes=50_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (read_file, read_records, lambda path, limits: list(_documents(path, "text", Meter(limits)))):
        if nested and read not in (read_file, read_records):
            continue
        with pytest.raises(UserError, match=r"t\.parquet: more than 0\.05 GB of data\. Give data\.max_gigabytes= "):
            read(path, limits)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB; whole it takes 2 GB


def test_what_cannot_be_measured_is_unpacked_a_little_at_a_time(tmp_path):
    texts = ["x" * 4000] * 10_000
    path = tmp_path / "t.parquet"
    table = pyarrow.table({"text": texts})
    pyarrow.parquet.write_table(table, path, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
    meter = Meter(Limits(bytes=10_000_000))
    with pytest.raises(UserError, match=r"more than 0\.01 GB"):
        list(_documents(path, "text", meter))
    assert meter.rows < 3000


def test_a_file_within_raised_limits_is_read(tmp_path):
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x" * 1000] * 5000}), path)
    for limits in (Limits(bytes=4_000_000), Limits(rows=4999)):
        with pytest.raises(UserError, match="more than"):
            read_file(path, limits)
    assert len(read_file(path, Limits(bytes=6_000_000, rows=5000))) == 5000


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".conll", ".txt", ".parquet"])
def test_limits_of_every_format(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(dict(whole_files())[suffix])
    for read in (read_file, read_records):
        rows = len(read(path, Limits(rows=12)))
        with pytest.raises(UserError, match=rf"t\{suffix}: more than {rows - 1} rows. Give max_rows= a larger"):
            read(path, Limits(rows=rows - 1, prefix=""))
        with pytest.raises(UserError, match=rf"t\{suffix}: more than 1e-08 GB of data. Give max_gigabytes= a larger"):
            read(path, Limits(bytes=10, prefix=""))


def test_the_files_of_a_corpus_share_their_limits(tmp_path):
    (tmp_path / "c").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "c" / name).write_text("One.\n\nTwo.\n")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["three", "four"]}), tmp_path / "c" / "c.parquet")
    for limits, name in [(Limits(rows=3), "b.txt"), (Limits(rows=5), "c.parquet"), (Limits(bytes=20), "c.parquet")]:
        with pytest.raises(UserError, match=rf"{name}: more than "):
            read_corpus(tmp_path / "c", "text", tmp_path, limits)
    assert len(read_corpus(tmp_path / "c", "text", tmp_path, Limits(rows=6))) == 6


def test_damage_in_a_directory_of_files_names_the_file(tmp_path):
    corpus = tmp_path / "c"
    corpus.mkdir()
    (corpus / "a.txt").write_text("One.\n")
    (corpus / "folder.txt").mkdir()
    (corpus / "b.txt").write_bytes(b"fine\n" * 9 + b"caf\xe9\n")
    with pytest.raises(UserError, match=r"b\.txt, line 10: not UTF-8"):
        read_corpus(corpus, "text", tmp_path)
    (corpus / "b.txt").write_bytes(b"fine\n\0\n")
    with pytest.raises(UserError, match=r"b\.txt, line 2: a NUL byte"):
        read_corpus(corpus, "text", tmp_path)
    (corpus / "b.txt").unlink()
    (corpus / "b.txt").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"No file .*b\.txt"):
        read_corpus(corpus, "text", tmp_path)
    (corpus / "b.txt").unlink()
    assert len(read_corpus(corpus, "text", tmp_path)) == 1


def test_the_limits_are_the_users():
    assert Limits.of(5, 0.5) == Limits(rows=5, bytes=500_000_000)
    assert Limits.of(Data().max_rows, Data().max_gigabytes) == Limits.of(None, None) == Limits()
    for name in ("max_rows", "max_gigabytes"):
        for value in (0, -1, float("nan")):
            with pytest.raises(ValueError, match=rf"data\.{name}=.*: expected a number above 0"):
                Data(**{name: value})


def test_the_limits_change_no_result():
    plain, other = configure("recipe=dense"), configure("recipe=dense", "data.max_rows=5", "data.max_gigabytes=1")
    assert plain != other
    assert result_hash(plain) == result_hash(other)


def test_a_text_without_its_mark(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\rc")
    assert read_text(tmp_path / "t.txt", Limits()) == "a\nb\rc"
    (tmp_path / "t.txt").write_bytes(b"a\rb\r")
    assert read_text(tmp_path / "t.txt", Limits()) == "a\nb\n"
