"""Rows in memory behave as those of the library datasets, which they become."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from sparse_xp.data.readers import read_rows
from sparse_xp.data.table import Table, column_array, concatenate, number_of, to_dataset, with_values


def table(**columns: list[object]) -> Table:
    return Table(pyarrow.table(columns), Path("t.json"))


def test_the_same_operations_give_the_same_rows():
    columns = {"a": [1, 2, 3], "b": ["x", None, "z"]}
    for rows in (table(**columns), Dataset.from_dict(columns)):
        changed = rows.select([0, 2]).remove_columns("a").add_column("c", [[1], []])
        assert changed.column_names == ["b", "c"]
        assert changed.to_list() == to_dataset(changed).to_list() == [{"b": "x", "c": [1]}, {"b": "z", "c": []}]
        assert (len(changed), list(changed["b"])) == (2, ["x", "z"])


def test_parts_follow_each_other():
    both = concatenate([table(a=[1]), table(a=[2])])
    assert isinstance(both, Table)
    assert both["a"] == [1, 2]
    assert concatenate([table(a=[1]), Dataset.from_dict({"a": [2]})]).to_list() == [{"a": 1}, {"a": 2}]


def test_the_names_of_classes_come_with_a_parquet_file(tmp_path):
    classes = ClassLabel(names=["no", "yes"])
    features = Features({"one": classes, "several": List(classes), "text": Value("string")})
    rows = Dataset.from_dict({"one": [1], "several": [[0]], "text": ["a"]}, features=features)
    rows.to_parquet(tmp_path / "t.parquet")
    read = read_rows(tmp_path / "t.parquet")
    assert [read.class_names(name) for name in ("one", "several", "text")] == [["no", "yes"], ["no", "yes"], None]
    assert read.to_dataset().features == features


@pytest.mark.parametrize(
    "metadata", [b"", b"{", b"[]", b'{"info": {"features": {"a": {"names": [1], "_type": "ClassLabel"}}}}']
)
def test_metadata_that_say_something_else_are_passed_over(metadata):
    data = pyarrow.table({"a": [0]}).replace_schema_metadata({b"huggingface": metadata})
    assert Table(data, Path("t.parquet")).class_names("a") is None


def test_rows_keep_their_numbers_in_the_file():
    rows = table(a=[0, 1, 2, 3]).select([1, 2, 3]).select([1, 2])
    assert [rows.place(row) for row in range(2)] == ["t.json, row 2", "t.json, row 3"]
    assert with_values(rows, "a", ["x", "y"]).place(1) == "t.json, row 3"
    assert number_of(Dataset.from_dict({"a": [0]}), 0) == "row 0"


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ([0, 1.0, None], ["0", "1.0", None]),
        ([[0, 1], [1.5]], [["0", "1"], ["1.5"]]),
        ([0, 1], [0, 1]),
        ([0.0, 1.5], [0.0, 1.5]),
    ],
)
def test_whole_numbers_beside_others_stay_as_written(values, held):
    assert column_array(values).to_pylist() == held


def test_numbers_beside_texts_are_of_two_types():
    with pytest.raises(pyarrow.ArrowException):
        column_array([0, 1.0, "a"])
