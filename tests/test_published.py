"""The published numbers beside a sweep."""

from __future__ import annotations

import pytest

from sparse_xp.config import CONF
from sparse_xp.errors import UserError
from sparse_xp.published import TOLERANCE, locate_published, read_published, value_of


def test_a_line_is_read(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(
        "task,cell,metric,published,std,n,tolerance,source,note\n"
        'squad,a,f1,87.1,0.04,3,0.3,"A, B",\nsquad,b,f1,88,,,,C,n\n'
    )
    first, second = read_published(path)
    assert (first.published, first.std, first.n, first.tolerance, first.source, first.note) == (
        87.1,
        0.04,
        3,
        0.3,
        "A, B",
        "",
    )
    assert (second.std, second.n, second.tolerance, second.model) == (None, None, TOLERANCE, None)
    path.write_text("task,cell,metric,published,std,n,tolerance,source,note,model\nsquad,a,f1,87.1,,,,A,,bert_base\n")
    assert read_published(path)[0].model == "bert_base"


def test_other_columns_are_refused(tmp_path):
    (tmp_path / "x.csv").write_text("task,cell\nsquad,a\n")
    with pytest.raises(UserError, match="line 1: want the columns task,cell,metric,"):
        read_published(tmp_path / "x.csv")


def test_it_is_found_by_name_or_path(tmp_path):
    assert locate_published("sparse_transfer").samefile(CONF.parent / "sweeps/sparse_transfer.csv")
    path = tmp_path / "own.csv"
    path.touch()
    assert locate_published(str(path)) == path
    with pytest.raises(UserError, match=r"--sweep sparse_transfr\. Did you mean 'sparse_transfer'\?"):
        locate_published("sparse_transfr")


def test_the_last_word_counts():
    assert value_of(["task=a", "task.name=x", "task=b"], "task") == "b"
    assert value_of([], "task") is None
