"""The published numbers beside a sweep."""

from __future__ import annotations

import pytest

from sparse_xp.errors import UserError
from sparse_xp.places import CONF
from sparse_xp.sweep.published import TOLERANCE, locate_published, read_published, value_of


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
    with pytest.raises(UserError, match="line 1: expected the columns task,cell,metric,"):
        read_published(tmp_path / "x.csv")


HEAD = "task,cell,metric,published,std,n,tolerance,source,note\n"


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "line 1: expected the columns"),
        (HEAD.encode() + b"squad,a,f1,caf\xe9,,,,A,\n", "line 2: not UTF-8"),
        (HEAD.encode() + b"squad,a\0,f1,1,,,,A,\n", "line 2: a NUL byte"),
        (HEAD.encode() + b'squad,"a,f1,1,,,,A,\n', "line 2: unexpected end of data"),
        (HEAD.encode() + b"squad," + b"x" * 140_000 + b",f1,1,,,,A,\n", "line 2: field larger than field limit"),
        (HEAD.encode() + b"squad,a,f1,1\n", "line 2: expected 9 values"),
        (HEAD.encode() + b"squad,a,f1,much,,,,A,\n", "line 2: published=much: expected a number"),
        (HEAD.encode() + b"squad,a,f1,nan,,,,A,\n", "line 2: published=nan: expected a number"),
        (HEAD.encode() + b"squad,a,f1,1,,1e999,,A,\n", "line 2: n=1e999: expected a number"),
        (b"x" * 10_000_001, "more than published numbers need"),
    ],
)
def test_damage_is_an_error_in_words(tmp_path, contents, message):
    path = tmp_path / "x.csv"
    path.write_bytes(contents)
    with pytest.raises(UserError, match=rf"x\.csv.*{message}"):
        read_published(path)


def test_a_directory_in_its_place(tmp_path):
    with pytest.raises(UserError, match="is a directory"):
        read_published(tmp_path)
    with pytest.raises(UserError, match=r"No file .*none\.csv"):
        read_published(tmp_path / "none.csv")


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
