"""Which modules become quantized ones, what they compute, and when their observers learn."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from sparse_xp.errors import UserError
from sparse_xp.functional.dropout import CheapDropout, cheap_dropout
from sparse_xp.functional.fake_quant import MinMaxObserver, activation_scale
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import (
    QuantEmbedding,
    QuantLinear,
    QuantState,
    freeze,
    observers_of,
    prepare,
    quantized_modules,
)
from tests.tiny import make_bert

ROWS = torch.tensor([[2, 5, 8, 9, 3], [2, 6, 11, 12, 3]])


def test_when_a_range_learns():
    batch, wide = torch.tensor([-1.0, 1.0]), torch.tensor([-3.0, 3.0])
    state, observer = QuantState(QuantConfig(), QuantMode(active=True), bits=8), MinMaxObserver()
    assert state.round_activation(batch, observer, training=False) is batch  # evaluation rows settle nothing
    assert observer.low is None
    state.round_activation(batch, observer, training=True)
    state.round_activation(wide, observer, training=False)
    assert (observer.low.item(), observer.count) == (-1, 1)
    state.mode.observing = False
    assert state.round_activation(wide, observer, training=True).tolist() == pytest.approx([-1, 1], abs=0.01)
    assert observer.count == 1
    state.mode.calibrating = True
    state.round_activation(wide, observer, training=False)
    assert (observer.low.item(), observer.count) == (-2, 2)


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_who_shares_a_range_sees_one_batch_once(name):
    model = make_bert()
    modules = prepare(model, QuantConfig(), QuantMode(active=True))
    observer = modules[f"bert.encoder.layer.0.attention.self.{name}"].quant.input_observer
    for count in (1, 2, 3):
        model.train()(ROWS)
        assert observer.count == count


def test_a_dynamic_range_is_the_batch():
    state, observer = QuantState(QuantConfig(dynamic=True), QuantMode(active=True), bits=8), MinMaxObserver()
    for top in (1.0, 100.0):
        values = torch.tensor([0.0, 0.3 * top, top])
        for training in (True, False):
            assert state.round_activation(values, observer, training).tolist() == pytest.approx(
                [0, 0.3 * top, top], rel=0.01
            )
    assert observer == MinMaxObserver()


# Modules


def test_one_linear_by_hand():
    layer = nn.Linear(2, 1)
    layer.weight.data, layer.bias.data = torch.tensor([[1.27, -0.006]]), torch.tensor([0.5])
    mode = QuantMode(observing=False)
    [module] = prepare(nn.Sequential(layer), QuantConfig(), mode).values()
    module.quant.input_observer = MinMaxObserver(torch.tensor(-1.0), torch.tensor(1.55))
    values = torch.tensor([[0.116, -2.0]])
    assert module(values).item() == pytest.approx(0.116 * 1.27 + 2 * 0.006 + 0.5)  # not active yet
    mode.active = True
    assert module(values).item() == pytest.approx(0.12 * 1.27 + 1 * 0.01 + 0.5, abs=1e-6)


def test_which_modules_change_and_who_shares_a_range():
    model = make_bert()
    plain = model(ROWS).logits
    modules = prepare(model, QuantConfig(), QuantMode())
    assert len([m for m in modules.values() if type(m) is QuantEmbedding]) == 3
    assert len([m for m in modules.values() if type(m) is QuantLinear]) == 8  # 6, the pooler and the classifier
    attention = model.bert.encoder.layer[0].attention
    shared = {id(getattr(attention.self, name).quant.input_observer) for name in ("query", "key", "value")}
    assert len(shared) == 1
    assert [getattr(attention.self, name).quant.updates_inputs for name in ("query", "key", "value")] == [
        True,
        False,
        False,
    ]
    assert len(observers_of(modules)) == 6
    assert not list(quantized_modules(model))
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
    modules = prepare(make_bert(), QuantConfig(), QuantMode(), **words)
    kinds = [type(module) for module in modules.values()]
    assert (kinds.count(QuantLinear), kinds.count(QuantEmbedding)) == (linears, embeddings)


@pytest.mark.parametrize(
    ("config", "matrix", "table"),
    [
        (QuantConfig(), 8, 8),
        (QuantConfig(reduce_range=True), 7, 8),  # a table is looked up, not multiplied
        (QuantConfig(weight_bits=7, reduce_range=True), 7, 7),
        (QuantConfig(weight_bits=4, reduce_range=True), 4, 4),
    ],
)
def test_the_bits_of_matrices_and_tables(config, matrix, table):
    modules = prepare(make_bert(), config, QuantMode())
    bits = {(isinstance(module, QuantLinear), module.quant.bits) for module in modules.values()}
    assert bits == {(True, matrix), (False, table)}


def test_a_linear_of_7_bits_by_hand():
    layer = nn.Sequential(nn.Linear(2, 1, bias=False))
    layer[0].weight.data[:] = torch.tensor([[0.63, 0.126]])  # 63 and 12.6 steps of 0.01
    [module] = prepare(layer, QuantConfig(reduce_range=True), QuantMode(active=True)).values()
    assert module(torch.eye(2)).flatten().tolist() == pytest.approx([0.63, 0.13])


def test_a_submodule_that_is_not_there():
    with pytest.raises(UserError, match=r"No module matches 'clasifier'\. Did you mean 'classifier'"):
        prepare(make_bert(), QuantConfig(), QuantMode(), submodules=["bert.encoder", "clasifier"])


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_layer_without_weights_stays_as_it_is():
    assert prepare(nn.Sequential(nn.Linear(0, 3), nn.Linear(3, 2)), QuantConfig(), QuantMode()).keys() == {"1"}


def test_outputs_are_rounded_where_that_is_asked_for():
    model = make_bert()
    modules = prepare(model, QuantConfig(), QuantMode(active=True), linear_outputs=True, embedding_outputs=True)
    model.train()(ROWS)
    assert len(observers_of(modules)) == 6 + 8 + 3
    observer = modules["classifier"].quant.output_observer
    steps = (model.eval()(ROWS).logits / activation_scale(observer.low, observer.high)[0]).detach()
    assert steps.equal(steps.round())


def test_a_frozen_scale_stays_and_what_leaves_it_has_no_gradient():
    model = make_bert()
    modules = prepare(model, QuantConfig(), QuantMode(active=True))
    model.train()(ROWS)
    freeze(modules)
    before, observer = modules["classifier"].quant.scale.clone(), observers_of(modules)["classifier.inputs"].low
    with torch.no_grad():
        model.classifier.weight[0, 0] = 100
    model(ROWS).logits.sum().backward()
    assert modules["classifier"].quant.scale.equal(before)
    assert observers_of(modules)["classifier.inputs"].low is observer
    assert model.classifier.weight.grad[0, 0] == 0
    assert model.classifier.weight.grad[1].ne(0).any()


def test_dropout_changes_its_class_beside_ours_and_back():
    model = make_bert()
    prepare(model, QuantConfig(), QuantMode())
    with cheap_dropout(model):
        assert any(type(module) is CheapDropout for module in model.modules())
        assert type(model.classifier) is QuantLinear
    assert not any(type(module) is CheapDropout for module in model.modules())
    assert type(model.classifier) is QuantLinear


# Rounded weights that are kept for a step


def step_model():
    model, mode = make_bert(), QuantMode(active=True, step=1)
    prepare(model, QuantConfig(), mode)
    return model.train(), mode, model.classifier


def test_a_weight_is_rounded_once_a_step_and_receives_the_gradient_of_each_batch():
    model, mode, layer = step_model()
    gradients = []
    for _ in range(2):
        model(ROWS).logits.sum().backward()
        gradients.append((layer.quant.rounded[1][0], layer.weight.grad.clone()))
    assert gradients[0][0] is gradients[1][0]
    assert gradients[1][1].equal(2 * gradients[0][1])
    mode.step += 1
    model(ROWS)
    assert layer.quant.rounded[1][0] is not gradients[0][0]


def doubled(parameter):
    parameter.data = parameter.data * 2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda model, mode: model.classifier.weight.mul_(2), id="version"),
        pytest.param(lambda model, mode: doubled(model.classifier.weight), id="memory"),
        pytest.param(
            lambda model, mode: (model.classifier.weight.data.mul_(2), setattr(mode, "step", 2)), id="data and step"
        ),
        pytest.param(lambda model, mode: (model.classifier.weight.data.mul_(2), model.eval()), id="evaluation"),
        pytest.param(
            lambda model, mode: model.load_state_dict({**model.state_dict(), "classifier.weight": torch.ones(2, 8)}),
            id="loaded",
        ),
    ],
)
def test_a_weight_that_changes_is_rounded_again(change):
    model, mode, layer = step_model()
    mode.observing, values = False, torch.randn(3, 8)
    layer(values)
    with torch.no_grad():
        change(model, mode)
        found = layer(values)
        mode.step = 0  # nothing is kept
        assert found.equal(layer(values))


def test_a_copy_begins_without_rounded_weights():
    model, _, layer = step_model()
    model(ROWS)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied.quant.rounded == ((), None)
        assert copied.eval()(torch.ones(1, 8)).equal(layer.eval()(torch.ones(1, 8)))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_training_is_the_same_and_compiles_nothing_anew(backend):
    results, compiled = [], []
    for compiles in (False, True):
        torch.manual_seed(0)
        mode = QuantMode(active=True)
        model = nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 2))
        modules = prepare(model, QuantConfig(reduce_range=True), mode, linear_outputs=True)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        called = torch.compile(model, backend=backend, fullgraph=True) if compiles else model
        before = counters["stats"]["unique_graphs"]
        for step in range(6):
            mode.step += 1
            if step == 4:
                freeze(modules)
            called(ROWS).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        compiled.append(counters["stats"]["unique_graphs"] - before)
        counts = [observer.batches for observer in observers_of(modules).values()]
        results.append((*model.parameters(), torch.tensor(counts)))
    assert all(one.equal(other) for one, other in zip(*results, strict=True))
    assert compiled == [0, 3]  # without ranges, with ranges, with frozen ones
