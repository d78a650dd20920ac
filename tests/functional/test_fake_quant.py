"""Scales, rounding and gradients against numbers worked out by hand, and which modules change."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.functional.dropout import CheapDropout, cheap_dropout
from sparse_xp.functional.fake_quant import (
    FILE,
    QuantEmbedding,
    QuantLinear,
    Range,
    Settings,
    activation_scale,
    fake_activation,
    fake_weight,
    freeze,
    integers,
    load_integers,
    prepare,
    quantized,
    ranges_of,
    save_integers,
    weight_scale,
)
from tests.tiny import make_bert

WEIGHT = torch.tensor([[1.27, -0.64, 0.0], [-2.54, 0.03, 0.01], [0.0, 0.0, 0.0]])
ROWS = torch.tensor([[2, 5, 8, 9, 3], [2, 6, 11, 12, 3]])

# Weights


def test_scale_of_a_weight():
    # the largest of each row over 127; a row of zeros has the smallest number there is, and not 0
    smallest = torch.finfo(torch.float32).tiny
    assert weight_scale(WEIGHT).tolist() == pytest.approx([0.01, 0.02, smallest])
    assert weight_scale(WEIGHT)[2] == smallest
    assert weight_scale(WEIGHT, per_channel=False).item() == pytest.approx(0.02)
    assert weight_scale(WEIGHT, bits=4, per_channel=False).item() == pytest.approx(2.54 / 7)
    assert weight_scale(torch.tensor([[0.5, 0.254]])).item() == pytest.approx(0.5 / 127)  # none below 0
    assert weight_scale(WEIGHT.bfloat16()).dtype == torch.float32


def test_integers_of_a_weight():
    assert integers(WEIGHT, weight_scale(WEIGHT)).tolist() == [[127, -64, 0], [-127, 2, 0], [0, 0, 0]]  # 1.5, 0.5: even
    assert integers(WEIGHT, torch.tensor(0.02)).tolist() == [[64, -32, 0], [-127, 2, 0], [0, 0, 0]]  # 63.5: even
    assert integers(WEIGHT, torch.tensor(0.01)).tolist() == [[127, -64, 0], [-127, 3, 1], [0, 0, 0]]  # no -128
    assert integers(WEIGHT, weight_scale(WEIGHT, 2), 2).tolist() == [[1, -1, 0], [-1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_fake_weight_is_its_integers_times_the_scale(bits, per_channel):
    torch.manual_seed(0)
    weight = torch.randn(16, 40) * torch.logspace(-3, 1, 16)[:, None]
    weight[3] = 0
    weight[5, ::3] = 0
    scale = weight_scale(weight, bits, per_channel)
    found = fake_weight(weight, scale, bits)
    assert found.equal(integers(weight, scale, bits) * (scale[:, None] if per_channel else scale))
    assert found[weight == 0].eq(0).all()
    assert (found - weight).abs().le((scale[:, None] if per_channel else scale) / 2 * 1.0001).all()


@pytest.mark.parametrize("scale", [torch.tensor(0.01), torch.tensor([0.01, 0.01])])
def test_the_gradient_goes_straight_through_inside_the_range_only(scale):
    weight = torch.tensor([[1.27, -1.27, 0.004], [1.28, -1.5, 0.0]], requires_grad=True)
    found = fake_weight(weight, scale)
    assert found.tolist()[1] == pytest.approx([1.27, -1.27, 0.0])
    found.backward(torch.full((2, 3), 3.0))
    assert weight.grad.tolist() == [[3, 3, 3], [0, 0, 3]]


# Activations


@pytest.mark.parametrize(
    ("low", "high", "bits", "scale", "zero_point"),
    [
        (-1.0, 1.55, 8, 0.01, 100),
        (-1.0, 0.5, 4, 0.1, 10),
        (0.5, 2.55, 8, 0.01, 0),  # made to hold 0
        (-2.55, -0.5, 8, 0.01, 255),
        (0.0, 0.0, 8, torch.finfo(torch.float32).tiny, 0),
    ],
)
def test_scale_of_an_activation(low, high, bits, scale, zero_point):
    found = activation_scale(torch.tensor(low), torch.tensor(high), bits)
    assert (found[0].item(), found[1].item()) == (pytest.approx(scale), zero_point)
    assert fake_activation(torch.zeros(3), *found, bits).eq(0).all()


def test_a_fake_activation_and_its_gradient():
    values = torch.tensor([-1.2, -1.0, 0.0, 0.014, 1.55, 1.6], requires_grad=True)
    found = fake_activation(values, torch.tensor(0.01), torch.tensor(100, dtype=torch.int32))
    assert found.tolist() == pytest.approx([-1.0, -1.0, 0.0, 0.01, 1.55, 1.55])
    found.sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 1, 1, 0]


def test_a_range_is_a_mean_at_first_and_then_a_moving_average():
    seen = Range()
    for i, (low, high) in enumerate([(-1.0, 2.0), (-3.0, 4.0), (-2.0, 9.0)], 1):
        seen.update(torch.tensor([low, 0.1, high]))
        assert seen.count == i
    assert (seen.low.item(), seen.high.item()) == (pytest.approx(-2.0), pytest.approx(5.0))
    seen.count = 1000
    seen.update(torch.tensor([-102.0, 5.0]))
    assert (seen.low.item(), seen.high.item()) == (pytest.approx(-3.0), pytest.approx(5.0))  # a hundredth of -100


def test_when_a_range_learns():
    batch, wide = torch.tensor([-1.0, 1.0]), torch.tensor([-3.0, 3.0])
    settings, seen = Settings(active=True), Range()
    assert settings.activation(batch, seen, training=False) is batch  # evaluation rows settle nothing
    assert seen.low is None
    settings.activation(batch, seen, training=True)
    settings.activation(wide, seen, training=False)
    assert (seen.low.item(), seen.count) == (-1, 1)
    settings.observing = False
    assert settings.activation(wide, seen, training=True).tolist() == pytest.approx([-1, 1], abs=0.01)
    assert seen.count == 1
    settings.calibrating = True
    settings.activation(wide, seen, training=False)
    assert (seen.low.item(), seen.count) == (-2, 2)


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_who_shares_a_range_sees_one_batch_once(name):
    model = make_bert()
    modules = prepare(model, Settings(active=True))
    seen = modules[f"bert.encoder.layer.0.attention.self.{name}"].quant.inputs
    for count in (1, 2, 3):
        model.train()(ROWS)
        assert seen.count == count


def test_a_dynamic_range_is_the_batch():
    settings, seen = Settings(active=True, dynamic=True), Range()
    for top in (1.0, 100.0):
        values = torch.tensor([0.0, 0.3 * top, top])
        for training in (True, False):
            assert settings.activation(values, seen, training).tolist() == pytest.approx([0, 0.3 * top, top], rel=0.01)
    assert seen == Range()


# Modules


def test_one_linear_by_hand():
    layer = nn.Linear(2, 1)
    layer.weight.data, layer.bias.data = torch.tensor([[1.27, -0.006]]), torch.tensor([0.5])
    settings = Settings(observing=False)
    [(_, module)] = prepare(nn.Sequential(layer), settings).items()
    module.quant.inputs = Range(torch.tensor(-1.0), torch.tensor(1.55))
    values = torch.tensor([[0.116, -2.0]])
    assert module(values).item() == pytest.approx(0.116 * 1.27 + 2 * 0.006 + 0.5)  # not active yet
    settings.active = True
    assert module(values).item() == pytest.approx(0.12 * 1.27 + 1 * 0.01 + 0.5, abs=1e-6)


def test_which_modules_change_and_who_shares_a_range():
    model = make_bert()
    plain = model(ROWS).logits
    modules = prepare(model, Settings())
    assert len([m for m in modules.values() if type(m) is QuantEmbedding]) == 3
    assert len([m for m in modules.values() if type(m) is QuantLinear]) == 8  # 6, the pooler and the classifier
    attention = model.bert.encoder.layer[0].attention
    shared = {id(getattr(attention.self, name).quant.inputs) for name in ("query", "key", "value")}
    assert len(shared) == 1
    assert [getattr(attention.self, name).quant.leads for name in ("query", "key", "value")] == [True, False, False]
    assert len(ranges_of(modules)) == 6
    assert not list(quantized(model))
    assert model(ROWS).logits.equal(plain)  # nothing happens until it is active
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in make_bert().named_parameters()]


@pytest.mark.parametrize(
    ("words", "linears", "embeddings"),
    [
        ({"submodules": ["classifier"]}, 1, 3),  # embeddings are quantized wherever they are
        ({"submodules": ["bert.encoder", "classifier"], "embeddings": False}, 7, 0),
        ({"submodules": ["re:bert.encoder.layer.0.att"], "embeddings": False}, 4, 0),
        ({"exclude": ["Embedding", "classifier", "LayerNorm", "Tanh"]}, 7, 0),
    ],
)
def test_what_is_left_out(words, linears, embeddings):
    modules = prepare(make_bert(), Settings(), **words)
    kinds = [type(module) for module in modules.values()]
    assert (kinds.count(QuantLinear), kinds.count(QuantEmbedding)) == (linears, embeddings)


@pytest.mark.parametrize(
    ("settings", "matrix", "table"),
    [
        (Settings(), 8, 8),
        (Settings(reduce_range=True), 7, 8),  # a table is looked up, not multiplied
        (Settings(weight_bits=7, reduce_range=True), 7, 7),
        (Settings(weight_bits=4, reduce_range=True), 4, 4),
    ],
)
def test_the_bits_of_matrices_and_tables(settings, matrix, table):
    modules = prepare(make_bert(), settings)
    bits = {(isinstance(module, QuantLinear), module.quant.bits) for module in modules.values()}
    assert bits == {(True, matrix), (False, table)}


def test_a_linear_of_7_bits_by_hand():
    layer = nn.Sequential(nn.Linear(2, 1, bias=False))
    layer[0].weight.data[:] = torch.tensor([[0.63, 0.126]])  # 63 and 12.6 steps of 0.01
    [module] = prepare(layer, Settings(active=True, reduce_range=True)).values()
    assert module(torch.eye(2)).flatten().tolist() == pytest.approx([0.63, 0.13])


def test_a_submodule_that_is_not_there():
    with pytest.raises(UserError, match=r"No module matches 'clasifier'\. Did you mean 'classifier'"):
        prepare(make_bert(), Settings(), ["bert.encoder", "clasifier"])


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_layer_without_weights_stays_as_it_is():
    assert prepare(nn.Sequential(nn.Linear(0, 3), nn.Linear(3, 2)), Settings()).keys() == {"1"}


def test_outputs_are_rounded_where_that_is_asked_for():
    model = make_bert()
    modules = prepare(model, Settings(active=True), linear_outputs=True, embedding_outputs=True)
    model.train()(ROWS)
    assert len(ranges_of(modules)) == 6 + 8 + 3
    seen = modules["classifier"].quant.outputs
    steps = (model.eval()(ROWS).logits / activation_scale(seen.low, seen.high)[0]).detach()
    assert steps.equal(steps.round())


def test_a_frozen_scale_stays_and_what_leaves_it_has_no_gradient():
    model = make_bert()
    modules = prepare(model, Settings(active=True))
    model.train()(ROWS)
    freeze(modules)
    before, seen = modules["classifier"].quant.scale.clone(), ranges_of(modules)["classifier.inputs"].low
    with torch.no_grad():
        model.classifier.weight[0, 0] = 100
    model(ROWS).logits.sum().backward()
    assert modules["classifier"].quant.scale.equal(before)
    assert ranges_of(modules)["classifier.inputs"].low is seen
    assert model.classifier.weight.grad[0, 0] == 0
    assert model.classifier.weight.grad[1].ne(0).any()


def test_dropout_changes_its_class_beside_ours_and_back():
    model = make_bert()
    prepare(model, Settings())
    with cheap_dropout(model):
        assert any(type(module) is CheapDropout for module in model.modules())
        assert type(model.classifier) is QuantLinear
    assert not any(type(module) is CheapDropout for module in model.modules())
    assert type(model.classifier) is QuantLinear


# quantization.json


@pytest.mark.parametrize(
    "words", [{}, {"per_channel": False, "weight_bits": 4}, {"dynamic": True}, {"reduce_range": True}]
)
def test_what_is_saved_computes_the_same_when_it_is_loaded(tmp_path, words):
    model = make_bert()
    modules = prepare(model, Settings(active=True, **words), linear_outputs=True)
    model.train()(ROWS)
    freeze(modules)
    model.save_pretrained(tmp_path)
    save_integers(model, tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert not loaded(ROWS).logits.equal(model.eval()(ROWS).logits)  # in floating point
    assert load_integers(loaded, tmp_path)
    assert loaded(ROWS).logits.equal(model(ROWS).logits)
    assert [name for name, _ in quantized(loaded)] == list(modules)


def test_a_model_of_floating_point_has_no_file(tmp_path):
    model = make_bert()
    prepare(model, Settings())
    save_integers(model, tmp_path)
    assert not list(tmp_path.iterdir())
    assert not load_integers(model, tmp_path)


def test_a_file_of_another_model(tmp_path):
    model = make_bert()
    prepare(model, Settings(active=True))
    save_integers(model, tmp_path)
    text = json.loads((tmp_path / FILE).read_text())
    text["modules"]["bert.encoder.layer.7.output.dense"] = text["modules"].pop("classifier")
    (tmp_path / FILE).write_text(json.dumps(text))
    with pytest.raises(UserError, match=r"is of another model: this one has no linear bert\.encoder\.layer\.7"):
        load_integers(make_bert(), tmp_path)


def test_a_mean_of_ranges_is_finite_for_a_constant_activation():
    seen = Range()
    seen.update(torch.zeros(4))
    scale, zero_point = activation_scale(seen.low, seen.high)
    assert math.isfinite(scale)
    assert zero_point == 0
