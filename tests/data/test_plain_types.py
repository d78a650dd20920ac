"""Columns of parquet files: whatever a task does not read must not refuse the file."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sparse_xp.data.readers import read_records, read_rows

DAY = pyarrow.array([2**31 - 1], pyarrow.int32()).cast(pyarrow.date32())
TWICE = pyarrow.StructArray.from_arrays([pyarrow.array([1]), pyarrow.array([2])], ["x", "x"])
CATEGORIES = pyarrow.array(["a"]).dictionary_encode()


def written(folder: Path, column: pyarrow.Array) -> Path:
    path = folder / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "odd": column}), path)
    return path


@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        (CATEGORIES, "string", "a"),
        (pyarrow.ListArray.from_arrays([0, 1], CATEGORIES), "list<element: string>", ["a"]),
        (pyarrow.StructArray.from_arrays([CATEGORIES], ["x"]), "struct<x: string>", {"x": "a"}),
        (pyarrow.array(["a"], pyarrow.string_view()), "string", "a"),
        (pyarrow.array([["a"]], pyarrow.list_view(pyarrow.string())), "list<element: string>", ["a"]),
        (pyarrow.array(["é".encode()]), "string", "é"),
        (pyarrow.array([b"\xff"]), "binary", b"\xff"),
        (pyarrow.array([600_000_000_000_000], pyarrow.timestamp("ms")), "string", "20983-03-30 10:40:00.000"),
        (pyarrow.array([0], pyarrow.timestamp("ms", "Mars/Base")), "string", "1970-01-01 00:00:00.000Z"),
        (DAY, "string", "<value out of range: 2147483647>"),
    ],
)
def test_columns_have_plain_types(tmp_path, column, kind, value):
    path = written(tmp_path, column)
    rows = read_rows(path)
    assert str(rows.data.schema.field("odd").type) == kind
    assert read_records(path) == rows.to_list() == [{"text": "a", "odd": value}]
    assert rows.to_dataset()["odd"][0] == value


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        pyarrow.array([b"0" * 16], pyarrow.uuid()),
        TWICE,
    ],
)
def test_columns_that_the_library_datasets_does_not_take_are_left_out(tmp_path, column):
    path = written(tmp_path, column)
    assert read_records(path)[0]["text"] == "a"
    assert read_rows(path).to_dataset().to_list() == [{"text": "a"}]
