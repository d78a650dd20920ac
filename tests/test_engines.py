"""Which engines there are, and that they compute the same."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from sparse_xp.engines import choose, fill, onnxruntime_call, openvino_call, versions
from sparse_xp.errors import UserError


def test_names_that_there_are_not():
    with pytest.raises(UserError, match=r"engine=onxruntime: want onnxruntime or openvino\. Did you mean"):
        choose(["onxruntime"])


def test_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert choose(None) == ["onnxruntime"]
    with pytest.raises(UserError, match=r"engine=openvino is not installed: pip install 'sparse-xp\[openvino\]'"):
        choose(["onnxruntime", "openvino"])


def test_a_batch_is_filled_up_to_the_shape_of_a_file():
    batch = {"input_ids": np.array([[7, 8]]), "attention_mask": np.array([[1, 1]])}
    filled = fill(batch, (2, 3))
    assert filled["input_ids"].tolist() == [[7, 8, 0], [0, 0, 0]]
    assert filled["attention_mask"].tolist() == [[1, 1, 0], [0, 0, 0]]
    assert fill(batch, (None, None))["input_ids"].tolist() == [[7, 8]]
    with pytest.raises(UserError, match=r"2 tokens: the file was exported for 1 \(export\.sequence\)"):
        fill(batch, (None, 1))


def test_both_compute_what_the_samples_say(deployed):
    pytest.importorskip("openvino")
    assert choose(None) == ["onnxruntime", "openvino"]
    assert set(versions(choose(None))) == {"onnxruntime", "openvino"}
    folder = deployed("squad") / "deployment"
    inputs, wanted = (dict(np.load(folder / f"samples/{what}-0000.npz")) for what in ("inp", "out"))
    for call in (onnxruntime_call, openvino_call):
        found = call(folder / "model.onnx", 1)(inputs)
        values = list(found.values() if hasattr(found, "values") else found)
        for value, each in zip(values, wanted.values(), strict=True):
            np.testing.assert_allclose(value, each, atol=1e-4)
