"""Columns as flat arrays: the tensors of a batch are those that Python lists would give, and nothing is copied."""

from __future__ import annotations

import pyarrow
import pytest
import torch
from datasets import Dataset

from sparse_xp.data.arrow_files import read_arrow, write_rows
from sparse_xp.data.batches import collate, lengths_of
from sparse_xp.data.flat_columns import flat_columns

LENGTHS = [3, 0, 7, 1, 7, 2, 0, 5, 4, 6]
COLUMNS = {
    "input_ids": [list(range(10 * i, 10 * i + n)) for i, n in enumerate(LENGTHS)],
    "weights": [[j / 3 for j in range(n + 1)] for n in LENGTHS],
    "labels": list(range(10)),
    "score": [i / 7 for i in range(10)],
    "spans": [[[j, j + i] for j in range(2)] for i in range(10)],
}
#: the same numbers in other types of Arrow
TYPES = {
    "small": {"input_ids": pyarrow.list_(pyarrow.int8()), "weights": pyarrow.list_(pyarrow.float32())},
    "large": {"input_ids": pyarrow.large_list(pyarrow.int64()), "labels": pyarrow.uint8(), "score": pyarrow.float32()},
    "fixed": {"spans": pyarrow.list_(pyarrow.list_(pyarrow.int32(), 2), 2)},
}
ROWS = [[0, 1, 2], [9], [4, 4, 0], list(range(10)), [8, 7, 6, 5]]


def collated_from_lists(features, rows, columns, padding):
    """As batches were made before there were flat columns."""
    picked, batch = features[rows], {}
    for name in columns:
        values = picked[name]
        if isinstance(values[0], list):
            width, fill = max(map(len, values)), padding.get(name, 0)
            values = [value + [fill] * (width - len(value)) for value in values]
        batch[name] = torch.tensor(values)
    return batch


def check_collate(features, rows=ROWS):
    padding = {"input_ids": 99, "weights": -100}
    columns = flat_columns(features, COLUMNS)
    for numbers in rows:
        expected = collated_from_lists(features, numbers, list(COLUMNS), padding)
        for source in (features, columns):
            batch = collate(source, numbers, list(COLUMNS), padding)
            assert list(batch) == list(COLUMNS)
            for name, tensor in batch.items():
                assert tensor.dtype == expected[name].dtype
                assert torch.equal(tensor, expected[name]), name
    assert lengths_of(features) == [len(tokens) for tokens in features["input_ids"]]


def make_table(types=None):
    types = types or {}
    return pyarrow.table({name: pyarrow.array(values, types.get(name)) for name, values in COLUMNS.items()})


@pytest.mark.parametrize("types", TYPES.values(), ids=TYPES.keys())
def test_batches_are_those_of_lists(types):
    check_collate(Dataset(make_table(types)))


def test_in_several_chunks_of_which_one_is_empty():
    table = make_table()
    parts = [table.slice(0, 1), table.slice(1, 4), table.slice(5, 0), table.slice(5)]
    features = Dataset(pyarrow.concat_tables(parts))
    assert features.data.column("labels").num_chunks > 2
    check_collate(features)


def test_selected_shuffled_and_sliced_rows():
    features = Dataset.from_dict(COLUMNS)
    check_collate(features.shuffle(seed=3))
    check_collate(features.select([9, 2, 2, 5, 0, 1]), [[0, 1, 2], [5, 3], [4]])
    check_collate(features.select(range(3, 9)), [[0, 1, 2], [5, 3], [4]])
    check_collate(features.shuffle(seed=3).select(range(3, 9)), [[0, 1, 2], [5, 3], [4]])


def test_files_are_mapped_and_not_read(tmp_path):
    rows = [{name: values[i] for name, values in COLUMNS.items()} for i in range(10)]
    write_rows(rows, tmp_path / "one", "one")
    features = read_arrow(tmp_path / "one")
    check_collate(features)
    before = pyarrow.total_allocated_bytes()
    columns = flat_columns(features, ["input_ids", "labels", "spans"])
    assert pyarrow.total_allocated_bytes() == before
    for column in columns.values():
        assert not any(values.flags.owndata for values in column.values)


def test_a_batch_of_empty_rows_keeps_the_type_of_its_column():
    batch = collate(Dataset.from_dict(COLUMNS), [1, 6], ["input_ids"], {})
    assert batch["input_ids"].shape == (2, 0)
    assert batch["input_ids"].dtype == torch.int64


def test_bools_stay_bools():
    features = Dataset.from_dict({"ready": [True, False, True, True]})
    assert collate(features, [1, 2], ["ready"], {})["ready"].tolist() == [False, True]


def test_no_rows_have_no_lengths():
    assert lengths_of(Dataset.from_dict({"input_ids": [[1]]}).select([])) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1], None], "1 rows have no value"),
        ([1, None], "1 rows have no value"),
        ([[1, None], [2]], "nulls"),
        ([[[1, 2], [3]]], "lists of 1 to 2 values within a list"),
        (["a", "b"], "zero_copy"),
    ],
)
def test_what_makes_no_tensor_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        flat_columns(Dataset.from_dict({"broken": values}), ["broken"])
