"""A label is the text that the file has; what is none is named with file and line."""

from __future__ import annotations

import ast
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from sparse_xp.errors import UserError
from sparse_xp.settings import Data
from sparse_xp.tasks import Task, TextClassification, TokenClassification
from sparse_xp.tasks.rows import Splits, load_splits
from tests.fuzz_rows import drawn_files
from tests.tiny import make_tokenizer


def task(**fields: Any) -> TextClassification:
    return TextClassification(**{"name": "mine", "dataset": None, "folder": "mine", "text": "text"} | fields)


def write(path: Path, labels: list[Any]) -> str:
    """A file of this format with a text for each label."""
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("text;label\n" + "".join(f"{row['text']};{row['label']}\n" for row in rows))
    return str(path)


def splits(folder: Path, train: tuple[str, list[Any]], valid: tuple[str, list[Any]], **fields: Any) -> Splits:
    files = [write(folder / f"{name}{suffix}", labels) for name, (suffix, labels) in (("t", train), ("v", valid))]
    return load_splits(task(**fields), Data(train=files[0], validation=files[1]))


@pytest.mark.parametrize(
    ("suffix", "labels", "classes"),
    [
        (".csv", ["01", "02", "10"], ["01", "02", "10"]),
        (".csv", ["1_1", "2_2"], ["1_1", "2_2"]),
        (".csv", ["true", "false"], ["false", "true"]),
        (".csv", ["1.0", "0.0"], ["0.0", "1.0"]),
        (".csv", ["10", "9", "2"], ["2", "9", "10"]),
        (".csv", ["1", "01", "1e3", "0x1"], ["01", "0x1", "1", "1e3"]),
        (".csv", ["NA", "nan", "None", "null"], ["NA", "None", "nan", "null"]),
        (".csv", ["9" * 30, "1"], ["1", "9" * 30]),
        (".jsonl", ["10", "9"], ["9", "10"]),
        (".jsonl", [True, False], ["false", "true"]),
        (".jsonl", [1.0, 0.0], ["0.0", "1.0"]),
        (".jsonl", [1, 0.0], ["0.0", "1"]),
        (".jsonl", [1, 0], ["0", "1"]),
        (".parquet", [1.0, 0.0], ["0.0", "1.0"]),
        (".parquet", [True, False], ["false", "true"]),
        (".parquet", ["007", "1_1"], ["007", "1_1"]),
        (".parquet", [b"a", "é".encode()], ["a", "é"]),
        (".parquet", [Decimal("1"), Decimal("2")], ["1", "2"]),
    ],
)
def test_a_label_is_what_the_file_says(tmp_path, suffix, labels, classes):
    for given in ([], classes):
        found = splits(tmp_path, (suffix, labels), (suffix, labels[:1]), classes=given)
        assert found.task.label_names == classes
        assert set(found.train.rows["label"]) == set(classes)
        assert found.train.warnings == found.evaluation.warnings == []


@pytest.mark.parametrize(
    ("train", "valid", "taken"),
    [
        ((".csv", [0, 1]), (".parquet", [1.0]), "1"),
        ((".parquet", [0.0, 1.0]), (".csv", [1]), "1.0"),
        ((".jsonl", [True, False]), (".csv", ["True"]), "true"),
        ((".csv", ["a", "b"]), (".csv", [" b"]), "b"),
    ],
)
def test_another_spelling_in_the_other_file_is_taken_and_said(tmp_path, train, valid, taken):
    found = splits(tmp_path, train, valid)
    assert found.evaluation.rows["label"] == [taken]
    [remark] = found.evaluation.warnings
    assert f"in column label is taken for the class {taken!r}" in remark
    assert str(tmp_path / f"v{valid[0]}") in remark


def test_a_number_is_the_place_of_a_class_only_if_the_user_named_the_classes(tmp_path):
    found = splits(tmp_path, (".csv", [0, 1]), (".parquet", [1.0, None][:1]), classes=["no", "yes"])
    assert (found.train.rows["label"], found.evaluation.rows["label"]) == (["no", "yes"], ["yes"])
    with pytest.raises(
        UserError, match=r"v\.csv, line 2: the label '1' in column label is none of the 2 classes: no, yes"
    ):
        splits(tmp_path, (".csv", ["no", "yes"]), (".csv", [1]))


@pytest.mark.parametrize(
    ("suffix", "labels", "message"),
    [
        (".csv", ["a", "", "b"], r"t\.csv, line 3: no label in column label"),
        (".csv", ["a", "  ", "b"], r"t\.csv, line 3: no label in column label"),
        (".jsonl", ["a", None], r"t\.jsonl, line 2: no label in column label"),
        (".jsonl", [1.0, float("nan")], r"t\.jsonl, line 2: no label in column label"),
        (".parquet", [1.0, None], r"t\.parquet, row 1: no label in column label"),
        (".csv", [0, 1, -1], r"t\.csv, line 4: the label -1 in column label marks a row without one"),
        (".parquet", [0.0, -1.0, 1.0], r"t\.parquet, row 1: the label -1\.0 in column label marks"),
        (".csv", ["1", "0", "1.0"], r"t\.csv, line 4: column label has the label '1\.0', and '1' in .*t\.csv, line 2"),
        (".jsonl", [0, 1, 1.0], r"t\.jsonl, line 3: column label has the label '1\.0', and '1' in .*t\.jsonl, line 2"),
        (".parquet", [b"a", b"\xff"], r"t\.parquet has binary in column label"),
        (".csv", ["a", "b", "a "], r"t\.csv, line 4: column label has the label 'a ', and 'a' in"),
        (".csv", ["0.5", "1.25", "7"], r"t\.csv, line 2: column label has 0\.5, .* Write task\.problem=regression"),
        (".csv", ["a", "a"], r"t\.csv: task mine: column label of the data has a only"),
    ],
)
def test_what_is_no_class_is_named_with_file_and_line(tmp_path, suffix, labels, message):
    with pytest.raises(UserError, match=message):
        splits(tmp_path, (suffix, labels), (suffix, labels))


def test_classes_that_the_user_names_may_be_anything(tmp_path):
    labels = ["-1", "0.5", "1", "1.0"]
    found = splits(tmp_path, (".csv", labels), (".csv", labels), classes=labels)
    assert found.evaluation.rows["label"] == labels
    with pytest.raises(UserError, match=r"line 2: the label 'yes' .* YAML reads yes and no as true and false"):
        splits(tmp_path, (".csv", ["yes", "no"]), (".csv", ["no"]), classes=["True", "False"])


def test_a_class_label_without_a_class(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"text": ["a", "b"], "label": [0, -1]}, features).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet, row 1: the label -1 in column label marks a row without one"):
        load_splits(task(), Data(train=str(tmp_path / "t.parquet")))


def test_the_rows_that_are_held_out_have_the_classes_of_the_file(tmp_path):
    rows = [{"text": f"text {i}", "label": ["a", str(i)]} for i in range(10)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_splits(task(problem="multi_label", validation_share=0.3), Data(train=str(tmp_path / "t.jsonl")))
    assert found.task.label_names == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("Pos", "'pos'"), ("caf\u00e9", "'cafe\\\\u0301'"), ("a", "'a\\\\u200b'"), ("a b", "'a\\\\xa0b'")],
)
def test_classes_that_look_alike_are_said(tmp_path, one, other):
    alike = ast.literal_eval(other.replace("\\\\", "\\"))
    [remark] = splits(tmp_path, (".csv", [one, "x", alike]), (".csv", [one])).train.warnings
    assert re.search(rf"t\.csv, line 4: column label has {other}, and '.* in .*t\.csv, line 2: they are two", remark)
    with pytest.raises(UserError, match=r"Did you mean 'Pos'|has other characters"):
        splits(tmp_path, (".csv", [one, "x"]), (".csv", [alike]))


def test_hardly_more_rows_than_classes_are_said(tmp_path):
    labels = [f"id {row // 2}" for row in range(100)]
    [remark] = splits(tmp_path, (".csv", labels), (".csv", labels)).train.warnings
    assert "column label has 50 classes in 100 rows" in remark
    assert splits(tmp_path, (".csv", [*labels, "id 1"]), (".csv", labels)).train.warnings == []


def test_the_names_of_the_columns_in_mid_file(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,x\ntext,label\nb,y\n")
    with pytest.raises(UserError, match=r"t\.csv, line 3: the names of the columns once more \(text, label\)"):
        load_splits(task(), Data(train=str(tmp_path / "t.csv")))


# Several labels, numbers, texts


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([[0, 1, 0], [1, 0, 1]], [["y"], ["x", "z"]]),
        ([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], [["y"], []]),
        ([[False, True, False], [True, True, True]], [["y"], ["x", "y", "z"]]),
        ([[0, 1], [2]], [["x", "y"], ["z"]]),
        ([["1", "0", "0"], ["0", "0", "1"]], [["x"], ["z"]]),
    ],
)
def test_a_0_or_1_for_each_class_and_lists_of_their_numbers(tmp_path, rows, named):
    (tmp_path / "j.jsonl").write_text("".join(f"{json.dumps({'text': 'a', 'label': row})}\n" for row in rows))
    (tmp_path / "c.csv").write_text("text;label\n" + "".join(f"a;{row}\n" for row in rows))
    for name in ("j.jsonl", "c.csv"):
        file = str(tmp_path / name)
        found = load_splits(task(problem="multi_label", classes=["x", "y", "z"]), Data(train=file, validation=file))
        assert found.train.rows["label"] == found.evaluation.rows["label"] == named


@pytest.mark.parametrize(
    ("rows", "classes"), [([[0, 1, 0]], []), ([[0, 1, 0], [1, 0]], ["x", "y", "z"]), ([[0, 0, 1]], ["0", "1", "2"])]
)
def test_a_0_or_1_for_each_of_unknown_classes(tmp_path, rows, classes):
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps({'text': 'a', 'label': row})}\n" for row in rows))
    with pytest.raises(
        UserError, match=r"t\.jsonl, line 1: column label has \[0, .*name the classes with task\.classes"
    ):
        load_splits(task(problem="multi_label", classes=classes), Data(train=str(tmp_path / "t.jsonl")))


def test_decimals_are_numbers(tmp_path):
    data = Data(
        train=write(tmp_path / "t.parquet", [Decimal("1.50"), Decimal("2")]), validation=str(tmp_path / "t.parquet")
    )
    assert load_splits(task(problem="regression"), data).train.rows["label"] == [1.5, 2.0]


def test_lists_of_labels_in_print(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,\"['x', 'y']\"\nb,\"['y' 'z']\"\nc,[]\n")
    found = load_splits(
        task(problem="multi_label"), Data(train=str(tmp_path / "t.csv"), validation=str(tmp_path / "t.csv"))
    )
    assert found.train.rows["label"] == [["x", "y"], ["y", "z"], []]
    (tmp_path / "t.csv").write_text("text,label\na,['x']\nb,x\n")
    with pytest.raises(UserError, match=r"t\.csv, line 3: column label is no list: expected one such as"):
        load_splits(task(problem="multi_label"), Data(train=str(tmp_path / "t.csv")))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "line 3: no number in column label"),
        ("1_1", "line 3: label='1_1', expected a number"),
        ("3,5", r"line 3: label='3,5', expected a number\. Write 3\.5\."),
        ("nan", "line 3: label='nan', expected a number"),
        ("inf", "line 3: label='inf', expected a number"),
        ("1e999", r"line 3: label='1e999', expected a number\. It is beyond the range of 64-bit floats\.$"),
    ],
)
def test_numbers(tmp_path, cell, message):
    data = Data(train=write(tmp_path / "t.csv", ["-1", " 2e1 "]), validation=str(tmp_path / "t.csv"))
    assert load_splits(task(problem="regression"), data).train.rows["label"] == [-1.0, 20.0]
    write(tmp_path / "t.csv", ["-1", cell])
    with pytest.raises(UserError, match=rf"t\.csv, {message}"):
        load_splits(task(problem="regression"), data)


def test_a_text_may_have_digits_alone_but_must_be_there(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n2020,a\n1_1,b\n")
    data = Data(train=str(tmp_path / "t.csv"), validation=str(tmp_path / "t.csv"))
    assert load_splits(task(), data).train.rows["text"] == ["2020", "1_1"]
    (tmp_path / "t.csv").write_text('text,label\n"two\nlines",a\n ,b\n')
    with pytest.raises(UserError, match=r"t\.csv, line 4: the text in column text is empty"):
        load_splits(task(), data)


def test_empty_texts_of_a_mirror_are_said(tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("train", "validation"):
        write(tmp_path / "mine" / f"{name}.parquet", ["a", "b"])
    rows = [{"text": text, "label": label} for text, label in (("", "a"), ("x", "b"))]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "mine" / "train.parquet")
    [remark] = load_splits(task(), Data(root=str(tmp_path))).train.warnings
    assert remark.endswith("train.parquet, row 0: the text in column text is empty, as in 1 of 2 rows")


# Any file


TASKS: dict[str, Task] = {
    "text": task(),
    "regression": task(problem="regression"),
    "several": task(problem="multi_label"),
    "tags": TokenClassification(name="mine", dataset=None, folder="mine", tags="tags"),
}
TOKENIZER = make_tokenizer()


def test_any_file_is_rows_or_an_error_that_names_it(tmp_path):
    read, unnamed = 0, []
    for kind, name, contents in drawn_files(seed=0, count=600):
        path = tmp_path / name
        path.write_bytes(contents)
        try:
            found = load_splits(TASKS[kind], Data(train=str(path), validation=str(path)))
        except UserError as error:
            unnamed += [str(error)] * (name not in str(error))
            continue
        read += 1
        features = found.task.features({n: found.train.rows[n] for n in found.task.columns()}, TOKENIZER, 0, train=True)
        assert len(features["input_ids"]) <= len(found.train.rows)
        if kind == "text":
            assert not {"", "-1"} & {label.strip() for label in found.task.label_names or []}
    assert not unnamed
    assert read > 100  # a test of errors alone would show little
