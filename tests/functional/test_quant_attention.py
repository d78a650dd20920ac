"""Rounded factors of attention's products: against the formula, through a file, and where they are refused."""

from __future__ import annotations

import json

import pytest
import torch

from sparse_xp.errors import UserError
from sparse_xp.functional.fake_quant import activation_scale, fake_quantize_activation
from sparse_xp.functional.quant_attention import (
    FACTORS,
    QuantAttention,
    prepare_attention,
    quantized_attention,
    quantized_attentions,
)
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_file import QUANTIZATION_FILE, load_quantization, save_quantization
from sparse_xp.functional.quant_modules import freeze, prepare
from tests.encoders import BATCH, make_encoder

CONFIG = QuantConfig()


def rounded(values):
    """Uint8 with the range of the values themselves."""
    return fake_quantize_activation(values, *activation_scale(*torch.aminmax(values)))


def test_the_products_are_those_of_rounded_factors():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 5, 4)
    mask = torch.zeros(2, 1, 1, 5)
    mask[1, ..., 3:] = torch.finfo(torch.float32).min
    attention = torch.nn.Module()
    attention.products = QuantAttention(CONFIG, QuantMode(active=True))
    found, _ = quantized_attention(attention, query, key, value, mask, scaling=0.5)
    weights = (rounded(query) @ rounded(key).transpose(2, 3) * 0.5 + mask).softmax(-1)
    torch.testing.assert_close(found, (rounded(weights) @ rounded(value)).transpose(1, 2))
    assert not torch.allclose(found, ((query @ key.transpose(2, 3) * 0.5 + mask).softmax(-1) @ value).transpose(1, 2))


@pytest.mark.parametrize("kind", ["Bert", "DistilBert", "Roberta", "Electra"])
def test_nothing_changes_before_quantization_is_active(kind):
    model = make_encoder(kind, layers=2)
    before = model(**BATCH).logits
    mode = QuantMode()
    modules = prepare_attention(model, CONFIG, mode)
    assert len(modules) == 2
    torch.testing.assert_close(model(**BATCH).logits, before)
    mode.active = True
    model.train()(**BATCH)  # observes
    after = model.eval()(**BATCH).logits
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, before, atol=0.05, rtol=0.05)
    for module in modules.values():
        assert all(observer.count == 1 for observer in module.observers.values())
        assert module.observers["probabilities"].low >= 0
        assert module.observers["probabilities"].high <= 1


def quantized(dynamic=False):
    """A model in 8 bits, its attention too, and its modules."""
    model, mode = make_encoder("Bert", layers=2), QuantMode(active=True)
    config = QuantConfig(dynamic=dynamic)
    modules = prepare(model, config, mode)
    attentions = prepare_attention(model, config, mode)
    model.train()(**BATCH)
    freeze(modules)
    return model.eval(), attentions


@pytest.mark.parametrize("dynamic", [False, True])
def test_what_is_saved_computes_the_same_when_it_is_loaded(tmp_path, dynamic):
    model, attentions = quantized(dynamic)
    model.save_pretrained(tmp_path)
    save_quantization(model, tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert load_quantization(loaded, tmp_path)
    assert [name for name, _ in quantized_attentions(loaded)] == list(attentions)
    assert loaded(**BATCH).logits.equal(model(**BATCH).logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry.pop("key"), "bert.encoder.layer.0.attention.self is not an object of kind, query, key"),
        (lambda entry: entry.update(query=[1, 0]), "attention.self: its query are not two numbers"),
        (lambda entry: entry.update(value="wide"), "attention.self: expected finite numbers"),
        (lambda entry: entry.update(kind="other"), "has no kind"),
    ],
)
def test_a_damaged_entry_is_refused(tmp_path, change, message):
    model, attentions = quantized()
    save_quantization(model, tmp_path)
    stored = json.loads((tmp_path / QUANTIZATION_FILE).read_text())
    change(stored["modules"][next(iter(attentions))])
    (tmp_path / QUANTIZATION_FILE).write_text(json.dumps(stored))
    fresh = make_encoder("Bert", layers=2)
    with pytest.raises(UserError, match=message):
        load_quantization(fresh, tmp_path)
    assert not any(isinstance(module, QuantAttention) for module in fresh.modules())


def test_half_of_the_layers_are_not_enough(tmp_path):
    model, attentions = quantized()
    save_quantization(model, tmp_path)
    stored = json.loads((tmp_path / QUANTIZATION_FILE).read_text())
    del stored["modules"][next(iter(attentions))]
    (tmp_path / QUANTIZATION_FILE).write_text(json.dumps(stored))
    with pytest.raises(UserError, match="it has 1 of 2 entries of kind attention"):
        load_quantization(make_encoder("Bert", layers=2), tmp_path)


@pytest.mark.parametrize("kind", ["MPNet", "DebertaV2", "ModernBert"])
def test_other_kinds_of_attention_are_refused(kind):
    with pytest.raises(UserError, match=f"attention_products=true: the attention of {kind}For"):
        prepare_attention(make_encoder(kind, layers=1), CONFIG, QuantMode())


def test_every_factor_has_a_range():
    assert set(QuantAttention(CONFIG, QuantMode()).observers) == set(FACTORS)
