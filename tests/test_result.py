"""``result.json``: written whole, read back equal, refused if it has another shape."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from sparse_xp.errors import UserError
from sparse_xp.functional.measured import Compression, StoredWeights, compressed_part
from sparse_xp.result import Result, result_summary
from tests.tiny import make_result


def test_a_result_is_read_back_as_it_was_written(tmp_path):
    written = make_result(teacher="outputs/dense", seed=7)
    written.write(tmp_path / "result.json")
    read = Result.read(tmp_path / "result.json")
    assert read == written
    assert type(read.sparsity) is type(written.sparsity)
    assert type(read.training) is type(written.training)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_compression_is_read_back_and_older_results_have_none(tmp_path):
    path = tmp_path / "result.json"
    encoder = compressed_part(1000, [StoredWeights(1000, 100, 8)])
    written = make_result(compression=Compression(encoder, compressed_part(8, [StoredWeights(8, 0, 32)])))
    written.write(path)
    raw = json.loads(path.read_text())
    assert raw["compression"]["encoder"] == {
        "dense_weights": 1000, "dense_bytes": 4000, "nonzero": 100, "bits": 8.0, "nonzero_bytes": 100.0, "ratio": 40.0,
        "masked_bytes": 225.0, "masked_ratio": 4000 / 225,
        "arithmetic": "1,000 weights x 32 bits / (100 nonzero x 8 bits) = 40.0",
    }  # fmt: skip
    assert raw["compression"]["model"]["ratio"] == "Infinity"
    assert Result.read(path) == written
    del raw["compression"]
    path.write_text(json.dumps(raw))
    assert Result.read(path).compression is None


def test_the_file_is_plain_json_for_other_tools(tmp_path):
    make_result().write(tmp_path / "result.json")
    text = (tmp_path / "result.json").read_text()
    assert text.endswith("}\n")
    raw = json.loads(text)
    assert raw["metric"] == "f1"
    assert raw["deployment"]["metrics"] == {"exact_match": 75.0, "f1": 82.25}
    assert raw["provenance"]["git"] is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda raw: raw.pop("seed"), "'seed'"),
        (lambda raw: raw["training"].pop("steps"), "'steps'"),
        (lambda raw: raw.update(extra=1), "'extra'"),
        (lambda raw: raw["deployment"].update(extra=1), "'extra'"),
        (lambda raw: raw.update(seed="x" * 200_000), "seed is 'xxx"),
        (lambda raw: raw["training"].update(seconds=None), "seconds is None"),
        (lambda raw: raw.update(compression={"encoder": {"ratio": 40}}), "missing"),
        (lambda raw: raw.update(compression=[40]), "has no attribute"),
    ],
    ids=[
        *("a field is missing", "a field of a part is missing", "an unknown field", "an unknown field of a part"),
        *("a field of another type", "no number", "half a compression", "a compression of another type"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, change, named):
    raw = asdict(make_result())
    change(raw)
    (tmp_path / "result.json").write_text(json.dumps(raw))
    with pytest.raises(UserError) as caught:
        Result.read(tmp_path / "result.json")
    assert str(caught.value).startswith(f"{tmp_path}/result.json is damaged (")
    assert named in str(caught.value)
    assert len(str(caught.value)) < 2100


def test_the_summary():
    assert result_summary(make_result()) == (
        "exported file: exact_match 75.00  f1 82.25  sparsity 80.0%  12.35 MB (4.50 MB under zstd)"
    )
