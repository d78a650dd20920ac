"""quantization.json: what is saved computes the same when it is loaded."""

from __future__ import annotations

import json

import pytest
import torch

from sparse_xp.errors import UserError
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_file import QUANTIZATION_FILE, load_quantization, save_quantization
from sparse_xp.functional.quant_modules import freeze, prepare, quantized_modules
from tests.tiny import make_bert

ROWS = torch.tensor([[2, 5, 8, 9, 3], [2, 6, 11, 12, 3]])


@pytest.mark.parametrize(
    "words", [{}, {"per_channel": False, "weight_bits": 4}, {"dynamic": True}, {"reduce_range": True}]
)
def test_what_is_saved_computes_the_same_when_it_is_loaded(tmp_path, words):
    model = make_bert()
    modules = prepare(model, QuantConfig(**words), QuantMode(active=True), linear_outputs=True)
    model.train()(ROWS)
    freeze(modules)
    model.save_pretrained(tmp_path)
    save_quantization(model, tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert not loaded(ROWS).logits.equal(model.eval()(ROWS).logits)  # in floating point
    assert load_quantization(loaded, tmp_path)
    assert loaded(ROWS).logits.equal(model(ROWS).logits)
    assert [name for name, _ in quantized_modules(loaded)] == list(modules)


def test_a_model_of_floating_point_has_no_file(tmp_path):
    model = make_bert()
    prepare(model, QuantConfig(), QuantMode())
    save_quantization(model, tmp_path)
    assert not list(tmp_path.iterdir())
    assert not load_quantization(model, tmp_path)


def test_a_file_of_another_model(tmp_path):
    model = make_bert()
    prepare(model, QuantConfig(), QuantMode(active=True))
    save_quantization(model, tmp_path)
    text = json.loads((tmp_path / QUANTIZATION_FILE).read_text())
    text["modules"]["bert.encoder.layer.7.output.dense"] = text["modules"].pop("classifier")
    (tmp_path / QUANTIZATION_FILE).write_text(json.dumps(text))
    with pytest.raises(UserError, match=r"is of another model: this one has no linear bert\.encoder\.layer\.7"):
        load_quantization(make_bert(), tmp_path)
