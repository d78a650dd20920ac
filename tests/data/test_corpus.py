"""Documents out of files, whole and in order, and kept once."""

from __future__ import annotations

import pytest
from datasets import Dataset, IterableDataset

from sparse_xp.data import corpus
from sparse_xp.data.arrow_files import cache_stream
from sparse_xp.data.corpus import read_corpus
from sparse_xp.data.wikitext import detokenize, wikitext_documents
from sparse_xp.errors import UserError


def test_text_files_of_a_directory_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b.txt").write_text("Third.\n")
    (tmp_path / "a.txt").write_text("First,\nstill first.\n\n\nSecond.\n\n")
    Dataset.from_dict({"text": ["fourth"], "title": ["x"]}).to_parquet(tmp_path / "c.parquet")
    rows = read_corpus(tmp_path, "text", tmp_path / "cache")
    assert list(rows["text"]) == ["First,\nstill first.", "Second.", "Third.", "fourth"]


def test_it_is_written_once_and_anew_for_another_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("One.\n\nTwo.\n")
    assert len(read_corpus(path, "text", tmp_path)) == 2
    monkeypatch.setattr(corpus, "_documents", lambda *_: pytest.fail("read again"))
    assert len(read_corpus(path, "text", tmp_path)) == 2
    monkeypatch.undo()
    path.write_text("One.\n")
    assert len(read_corpus(path, "text", tmp_path)) == 1


def test_an_interrupted_writing_leaves_nothing(tmp_path):
    def broken():
        yield {"text": "one"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.write_rows(broken(), tmp_path / "x", "x")
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]
    assert list(corpus.write_rows([{"text": "one"}], tmp_path / "x", "x")["text"]) == ["one"]


def test_errors_name_the_file(tmp_path):
    with pytest.raises(UserError, match=r"No file .*none"):
        read_corpus(tmp_path / "none", "text", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \.txt and no \.parquet"):
        read_corpus(tmp_path / "empty", "text", tmp_path)
    Dataset.from_dict({"body": ["a"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no column 'text', but body"):
        read_corpus(tmp_path / "a.parquet", "text", tmp_path)
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_corpus(tmp_path / "a.txt", "text", tmp_path)
    (tmp_path / "b.txt").write_text("\n\n")
    with pytest.raises(UserError, match="no rows"):
        read_corpus(tmp_path / "b.txt", "text", tmp_path)


def test_of_a_stream_only_what_is_wanted_is_read(tmp_path):
    read = []

    def rows():
        for number in range(30_000):
            read.append(number)
            yield {"text": f"document {number}", "id": number}

    stream = IterableDataset.from_generator(rows)
    kept = cache_stream(stream, 50, 0, tmp_path / "s")
    assert len(kept) == 50
    assert len(set(kept["id"])) == 50
    assert len(read) < 15_000  # a pool of 10,000, and no more than it takes
    seen = len(read)
    again = cache_stream(stream, 50, 0, tmp_path / "s")
    assert list(again["id"]) == list(kept["id"])
    assert len(read) == seen
    other = cache_stream(stream, 50, 0, tmp_path / "other")
    assert list(other["id"]) == list(kept["id"])


def test_wikitext_lines_become_articles():
    lines = [
        "",
        " = One = \n",
        "",
        " A @-@ b , c . \n",
        " = = Part = = \n",
        " D ( e ) ' s \n",
        "\n",
        " = Two = \n",
        " F .\n",
    ]
    assert list(wikitext_documents(lines)) == ["= One = A-b, c. == Part == D (e) ' s", "= Two = F."]


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("3 @.@ 5 km , 1 @,@ 000 m", "3.5 km, 1,000 m"),
        ('He said " yes " and left .', 'He said "yes" and left.'),
        ("the dog 's bone ( old )", "the dog's bone (old)"),
        ("about N men", "about 1 men"),
        ("Why ? No ! So ; it : is", "Why? No! So; it: is"),
    ],
)
def test_detokenized(tokens, text):
    assert detokenize(tokens) == text
