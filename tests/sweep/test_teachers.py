"""Which dense run teaches a cell."""

from __future__ import annotations

from sparse_xp.sweep.teachers import dense_cell
from tests.sweep.cells import make_cell


def test_the_dense_cell_of_the_same_data_teaches():
    cells = [
        make_cell(words=["task=sst2", "recipe=dense", "+modifier@recipe.modifiers.x=LayerPruning"], directory="fewer"),
        make_cell(words=["task=sst2", "recipe=dense", "quantization=int8"], directory="int8"),
        make_cell(words=["task=squad", "recipe=dense"], directory="other task"),
        make_cell(words=["task=sst2", "recipe=dense", "train.epochs=9", "seed=1"], directory="yes"),
        make_cell(words=["task=sst2", "recipe=dense", "train.epochs=9", "seed=2"], seed=2, directory="second"),
    ]
    assert dense_cell(cells, "tiny", ["task=sst2", "recipe=dense"], None) is cells[3]
    assert dense_cell(cells, "tiny", ["task=sst2"], 2) is cells[4]
    assert dense_cell(cells, "bert_base", ["task=sst2"], None) is None
    assert dense_cell(cells, "tiny", ["task=sst2", "data.root=here"], None) is None
