"""Tags of files: schemes are converted, lists in print read, what is no tag named with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from sparse_xp.errors import UserError
from sparse_xp.settings import Data
from sparse_xp.tasks import TokenClassification
from sparse_xp.tasks.bio import entity_words, to_bio
from sparse_xp.tasks.rows import Splits, load_splits


def splits(folder: Path, name: str, train: str, valid: str | None = None, **fields: Any) -> Splits:
    (folder / f"t{name}").write_text(train)
    (folder / f"v{name}").write_text(train if valid is None else valid)
    kind = TokenClassification(**{"name": "mine", "dataset": None, "folder": "mine", "tags": "tags"} | fields)
    return load_splits(kind, Data(train=str(folder / f"t{name}"), validation=str(folder / f"v{name}")))


@pytest.mark.parametrize(
    ("tags", "converted"),
    [
        ("B-A I-A O B-A", "B-A I-A O B-A"),
        ("I-A I-A B-A I-B", "B-A I-A B-A B-B"),  # IOB1
        ("B-A I-A E-A S-A O S-B", "B-A I-A I-A B-A O B-B"),  # BIOES
        ("B-A L-A U-A U-B", "B-A I-A B-A B-B"),  # BILOU
        ("B-A M-A E-A W-A", "B-A I-A I-A B-A"),  # BMEWO
        ("S-A I-A E-A E-A", "B-A B-A I-A B-A"),  # what does not continue begins
    ],
)
def test_every_scheme_has_the_same_entities_in_bio(tags, converted):
    assert to_bio(tags.split()) == converted.split()
    assert to_bio(converted.split()) == converted.split()
    starts = sum(tag.startswith("B-") for tag in converted.split())
    assert len(entity_words(converted.split())) == starts


def test_iob1_in_one_file_and_iob2_in_the_other(tmp_path):
    found = splits(tmp_path, ".conll", "Ada B-PER\nL I-PER\n\nBari B-LOC\n", "x O\nAda I-PER\nL I-PER\nBob B-PER\n")
    assert found.evaluation.rows["tags"] == [["O", "B-PER", "I-PER", "B-PER"]]
    [remark] = found.evaluation.warnings
    assert remark.endswith(
        "v.conll, line 2: I-PER is read as B-PER (tags of IOB1, with I- at the beginning of an entity; so are 1 in all)"
    )
    assert found.train.warnings == []


def test_bioes_is_converted_and_said(tmp_path):
    found = splits(tmp_path, ".conll", "Ada S-PER\n\nNew B-LOC\nYork E-LOC\n")
    assert found.task.label_names == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert found.train.rows["tags"] == [["B-PER"], ["B-LOC", "I-LOC"]]
    assert found.train.warnings[0].endswith(
        "t.conll, line 1: S-PER is read as B-PER (tags of BIOES or BILOU; so are 2 in all)"
    )


def test_classes_without_b_keep_i(tmp_path):
    found = splits(tmp_path, ".conll", "Ada I-PER\nx O\n", "Ada B-PER\n", classes=["O", "I-PER"])
    assert (found.train.rows["tags"], found.evaluation.rows["tags"]) == ([["I-PER", "O"]], [["I-PER"]])


@pytest.mark.parametrize(
    "tags", ["\"['B-A', 'O']\"", "\"['B-A' 'O']\"", '"[1, 0]"', "[1 0]", "[1. 0.]", '"[""1"", ""0""]"']
)
def test_lists_in_print(tmp_path, tags):
    found = splits(tmp_path, ".csv", f'tokens,tags\n"[\'Ada\' ""it\'s""]",{tags}\n', classes=["O", "B-A"])
    assert found.train.rows.to_list() == [{"tokens": ["Ada", "it's"], "tags": ["B-A", "O"]}]


@pytest.mark.parametrize("names", [["O", "B-A", "I-A"], ["I-A", "O", "B-A"], ["O", "B-A", "I-A", "S-A", "E-A"]])
def test_numbers_with_names(tmp_path, names):
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=names))})
    rows = {"tokens": [["a", "b", "c"]], "tags": [[names.index(tag) for tag in ("B-A", "I-A", "O")]]}
    Dataset.from_dict(rows, features).to_parquet(tmp_path / "t.parquet")
    data = Data(train=str(tmp_path / "t.parquet"), validation=str(tmp_path / "t.parquet"))
    task = load_splits(TokenClassification(name="mine", dataset=None, folder="mine", tags="tags"), data).task
    assert sorted(task.classes) == ["B-A", "I-A", "O"]


@pytest.mark.parametrize(
    ("name", "train", "valid", "message"),
    [
        (".conll", "# id\nAda B-A\nx foo\n", "", r"t\.conll, line 3: the tag 'foo' in column tags is none of a scheme"),
        (".conll", "x O\n\nAda B-A\ny B-\n", "", r"t\.conll, line 4: the tag 'B-' in column tags is none of a scheme"),
        (".conll", "Ada B-A\n", "x O\n\nAda B-C\n", r"v\.conll, line 3: the tag 'B-C' in column tags is none of the 3"),
        (
            ".jsonl",
            '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a"], "tags": [null]}\n',
            "",
            r"t\.jsonl, line 2: the tag None",
        ),
        (
            ".jsonl",
            '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": [""], "tags": ["O"]}\n',
            "",
            r"t\.jsonl, line 2: word 0 in column tokens is ''",
        ),
        (
            ".jsonl",
            '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a"], "tags": []}\n',
            "",
            r"t\.jsonl, line 2 has 1 tokens and 0 tags",
        ),
        (
            ".jsonl",
            '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a"]}\n',
            "",
            r"t\.jsonl, line 2: no list in column tags",
        ),
        (
            ".jsonl",
            '{"tokens": ["a"], "tags": [0]}\n',
            "",
            r"t\.jsonl: task mine: column tags has numbers \(0 to 0\) without names",
        ),
        (
            ".jsonl",
            '{"tokens": ["a"], "tags": ["B-A"]}\n',
            '{"tokens": ["a"], "tags": [1]}\n',
            r"v\.jsonl, line 1: the tag 1 in column tags is a number",
        ),
        (".csv", "tokens,tags\n\"['a']\",['O']\na b,O O\n", "", r"t\.csv, line 3: column tokens is no list"),
        (
            ".csv",
            "tokens,tags\n['a' ... 'b'],['O']\n",
            "",
            r"t\.csv, line 2: column tokens is a list that was printed in part",
        ),
    ],
)
def test_what_is_no_tag_is_named_with_file_and_line(tmp_path, name, train, valid, message):
    with pytest.raises(UserError, match=message):
        splits(tmp_path, name, train, valid)


@pytest.mark.parametrize("tag", [-1, 2, -100])
def test_a_number_that_is_none_of_a_class(tmp_path, tag):
    with pytest.raises(
        UserError, match=rf"t\.jsonl, line 1: the tag {tag} in column tags is a number, but there are 2"
    ):
        splits(tmp_path, ".jsonl", f'{{"tokens": ["a"], "tags": [{tag}]}}\n', classes=["O", "B-A"])


def test_numbers_of_tags_as_texts(tmp_path):
    rows = '{"tokens": ["J", "x"], "tags": ["1", "0"]}\n'
    found = splits(tmp_path, ".jsonl", rows, classes=["O", "B-PER", "I-PER"])
    assert found.train.rows["tags"] == [["B-PER", "O"]]


def test_names_of_no_scheme_are_refused_as_tags_are(tmp_path):
    names = ["O", "art", "PER"]
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=names))})
    Dataset.from_dict({"tokens": [["a", "b"]], "tags": [[0, 2]]}, features).to_parquet(tmp_path / "t.parquet")
    task = TokenClassification(name="mine", dataset=None, folder="mine", tags="tags")
    with pytest.raises(UserError, match=r"t\.parquet, row 0: the tag 'PER' in column tags is none of a scheme"):
        load_splits(task, Data(train=str(tmp_path / "t.parquet")))


def test_types_that_look_alike_are_said(tmp_path):
    [remark] = splits(tmp_path, ".jsonl", '{"tokens": ["a", "b"], "tags": ["B-PER", "B-per"]}\n').train.warnings
    assert re.search(r"t\.jsonl, line 1: column tags has 'per', and 'PER' in .*, line 1: they are two classes", remark)
