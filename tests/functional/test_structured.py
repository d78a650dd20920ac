"""Heads and neurons scored, silenced, cut out and loaded, in the three kinds of encoder."""

from __future__ import annotations

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tests.test_structure import BATCH, KINDS, make
from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.expand import main as expand_command
from sparse_xp.functional.cost_model import Shape
from sparse_xp.functional.fake_quant import Settings, freeze, prepare
from sparse_xp.functional.layers import Gate
from sparse_xp.functional.measured import Removed
from sparse_xp.functional.structured import (
    blocks,
    cut_out,
    expand,
    fitting,
    full_shape,
    gate_gradients,
    gone_layers,
    linear,
    loud,
    remove,
    removed,
    shrink,
    silence,
    sizes_of,
    squared_norms,
    without_lowest,
)
from sparse_xp.models.reduced import load

T = torch.tensor

#: uneven: 2 heads of 4 wide, 16 neurons in the full shape
KEPT = [((1, 0), 5), ((1, 1), 16), ((0, 1), 16), ((1, 0), 1)]


def kept_of(model):
    return {
        block.name: (T(heads, dtype=torch.bool), torch.arange(16) < neurons)
        for block, (heads, neurons) in zip(blocks(model), KEPT, strict=True)
    }


def silenced(kind):
    """A model whose silenced groups are zero, and what it keeps."""
    model = make(kind)
    kept = kept_of(model)
    for block in blocks(model):
        for name, cut in block.cuts(*kept[block.name]).items():
            silence(linear(model, name), cut)
    return model, kept


def logits(model):
    with torch.no_grad():
        return model.eval()(**BATCH).logits


# Scores


def test_gate_gradients_by_hand():
    weight, gradient = T([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, -1.0]]), T([[1.0, 1.0, 0.5, 0.0], [9.0, 2.0, 9.0, 3.0]])
    assert gate_gradients(weight, gradient, 1).tolist() == [1.0, 4.0, 1.5, -3.0]
    assert gate_gradients(weight, gradient, 2).tolist() == [5.0, -1.5]


@pytest.mark.parametrize("size", [1, 4])
def test_gate_gradients_are_the_derivatives_by_a_gate(size):
    torch.manual_seed(0)
    layer, values = nn.Linear(8, 3), torch.randn(5, 8)
    gates = torch.ones(8 // size, requires_grad=True)
    layer(values * gates.repeat_interleave(size)).square().sum().backward()
    torch.testing.assert_close(gate_gradients(layer.weight, layer.weight.grad, size), gates.grad)


def test_squared_norms_by_hand():
    up, bias, down = (
        T([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0], [1.0, 1.0]]),
        T([1.0, 0.0, 0.0, 2.0]),
        T([[1.0, 2.0, 0.0, 1.0]]),
    )
    assert squared_norms([(up, bias)], down, 1).tolist() == [7.0, 5.0, 9.0, 7.0]
    assert squared_norms([(up, None), (up, bias)], down, 2).tolist() == [5 + 1 + 6 + 1 + 5, 9 + 2 + 9 + 6 + 1]


def test_without_lowest():
    alive = T([True, True, False, True, True])
    assert without_lowest(T([3.0, 1.0, 9.0, 2.0, 2.0]), alive, 2).tolist() == [True, False, False, True, False]
    assert without_lowest(T([0.0, 0.0, 0.0, 0.0, 0.0]), alive, 4).tolist() == alive.tolist()


# One Linear


def test_silence_and_cut_by_hand():
    layer = nn.Linear(3, 2)
    layer.weight.data, layer.bias.data = T([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), T([7.0, 8.0])
    layer.weight.grad, layer.bias.grad = torch.ones(2, 3), torch.ones(2)
    rows, columns = (T([False, True]), None), (None, T([True, False, True]))
    assert (loud(layer, rows), loud(layer, columns)) == (4, 2)
    silence(layer, rows, gradients=True)
    assert (layer.weight.grad.tolist(), layer.bias.grad.tolist()) == ([[0.0] * 3, [1.0] * 3], [0.0, 1.0])
    silence(layer, columns)
    assert layer.weight.tolist() == [[1.0, 0.0, 3.0], [4.0, 0.0, 6.0]]
    assert (loud(layer, rows), loud(layer, columns)) == (3, 0)
    weight = layer.weight
    shrink(layer, columns)
    shrink(layer, rows)
    assert layer.weight is weight
    assert (layer.weight.tolist(), layer.bias.tolist()) == ([[4.0, 6.0]], [8.0])
    assert (layer.in_features, layer.out_features) == (2, 1)
    assert cut_out(T([1, 2]), rows).tolist() == [2]


# Whole models


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_know_heads_and_neurons(kind):
    model = make(kind)
    assert sizes_of(model) == [(2, 16)] * 4
    assert full_shape(model) == Shape(8, 2, 4, 16)
    assert removed(model) is None
    assert blocks(model)[1].name == f"{KINDS[kind][0]}.1"


def test_another_kind_of_encoder_is_refused():
    config = transformers.AlbertConfig(
        vocab_size=30, embedding_size=8, hidden_size=8, num_attention_heads=2, intermediate_size=16
    )
    with pytest.raises(UserError, match="AlbertModel: structured pruning knows the layers of BERT, RoBERTa"):
        blocks(transformers.AlbertModel(config))


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_same_before_and_after_removal_and_after_loading(tmp_path, kind):
    model, kept = silenced(kind)
    before = logits(model)
    remove(model, kept)
    torch.testing.assert_close(logits(model), before, atol=1e-6, rtol=0)
    assert sizes_of(model) == [(1, 5), (2, 16), (1, 16), (1, 1)]
    # 5 of 8 heads and 38 of 64 neurons are left, of 4 * 8 * 4 and 2 * 8 weights each
    assert removed(model).share == pytest.approx(1 - (5 * 128 + 38 * 16) / (8 * 128 + 64 * 16))
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert type(loaded).__name__ == type(model).__name__
    assert (sizes_of(loaded), full_shape(loaded), removed(loaded)) == (
        sizes_of(model),
        Shape(8, 2, 4, 16),
        removed(model),
    )
    assert torch.equal(logits(loaded), logits(model))
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        type(model).from_pretrained(tmp_path)
    # The few lines of docs/structured.md, without this package
    stock = type(model)(transformers.AutoConfig.from_pretrained(tmp_path))
    for name, values in load_file(tmp_path / "model.safetensors").items():
        module, _, parameter = name.rpartition(".")
        setattr(stock.get_submodule(module), parameter, nn.Parameter(values))
    assert torch.equal(logits(stock), logits(model))


@pytest.mark.parametrize("kind", KINDS)
def test_neurons_alone_leave_a_stock_model(tmp_path, kind):
    model = make(kind)
    kept = {block.name: (torch.ones(2, dtype=torch.bool), torch.arange(16) % 2 == 0) for block in blocks(model)}
    for block in blocks(model):
        for name, cut in block.cuts(*kept[block.name]).items():
            silence(linear(model, name), cut)
    before = logits(model)
    remove(model, kept)
    model.save_pretrained(tmp_path)
    stock, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits(stock), before, atol=1e-6, rtol=0)
    assert full_shape(stock) == Shape(8, 2, 4, 16)
    assert removed(stock).share == pytest.approx(0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_expanded_a_stock_model_has_the_same_logits(tmp_path, kind):
    model, kept = silenced(kind)
    remove(model, kept)
    before = logits(model)
    model.save_pretrained(tmp_path / "small")
    (tmp_path / "small/tokenizer.json").write_text("{}")
    expand_command([f"model={tmp_path}/small", f"out={tmp_path}/whole"])
    stock, info = type(model).from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits(stock), before, atol=1e-6, rtol=0)
    assert (sizes_of(stock), removed(stock)) == ([(2, 16)] * 4, None)
    assert (tmp_path / "whole/tokenizer.json").is_file()
    with pytest.raises(UserError, match="is left as it is"):
        expand_command([f"model={tmp_path}/small", f"out={tmp_path}/whole"])
    with pytest.raises(UserError, match="has its full shape: nothing was removed"):
        expand_command([f"model={tmp_path}/whole", f"out={tmp_path}/again"])
    with pytest.raises(UserError, match=r"is no model directory: it has no config\.json"):
        expand_command([f"model={tmp_path}", f"out={tmp_path}/again"])


def without(model, *gone):
    """``model`` with the gates of some layers closed, and what it keeps."""
    kept = {}
    for number, block in enumerate(blocks(model)):
        gate = Gate(model.get_submodule(block.name))
        gate.set(open=number not in gone, weighs=False)
        kept[block.name] = tuple(torch.full((n,), number not in gone) for n in sizes_of(model)[number])
    return kept


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_keeps_nothing_goes_whole(tmp_path, kind):
    model = make(kind)
    kept = without(model, 1, 2)
    before = logits(model)
    remove(model, kept)
    torch.testing.assert_close(logits(model), before, atol=1e-6, rtol=0)
    assert (sizes_of(model), gone_layers(model), full_shape(model)) == ([(2, 16)] * 2, [1, 2], Shape(8, 2, 4, 16))
    assert removed(model).share == pytest.approx(0.5)
    assert (
        removed(model).told()
        == "50.0% of the encoder removed (heads 2 in 2 layers; neurons 16 in 2 layers; without layers 1 2)"
    )
    model.save_pretrained(tmp_path)
    stock, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for loaded in (stock, load(tmp_path)):
        torch.testing.assert_close(logits(loaded), before, atol=1e-6, rtol=0)
        assert removed(loaded) == removed(model)


def test_layers_are_counted_in_the_full_model_by_a_second_removal():
    model = make("Bert")
    remove(model, without(model, 1))
    kept = without(model, 1)  # the third of the first four
    block = blocks(model)[2]
    kept[block.name] = T([True, False]), torch.arange(16) < 8
    for name, cut in block.cuts(*kept[block.name]).items():
        silence(linear(model, name), cut)
    before = logits(model)
    remove(model, kept)
    torch.testing.assert_close(logits(model), before, atol=1e-6, rtol=0)
    assert removed(model) == Removed(1 - (1 + 0.5) / 4, [2, 1], [16, 8], [1, 2])
    expand(model)
    torch.testing.assert_close(logits(model), before, atol=1e-6, rtol=0)
    assert (sizes_of(model), removed(model)) == ([(2, 16)] * 2, None)


def test_removal_twice():
    model, kept = silenced("Bert")
    remove(model, kept)
    second = {
        block.name: (torch.ones(heads, dtype=torch.bool), torch.arange(neurons) < 1)
        for block, (heads, neurons) in zip(blocks(model), sizes_of(model), strict=True)
    }
    remove(model, second)
    assert sizes_of(model) == [(1, 1), (2, 1), (1, 1), (1, 1)]
    assert full_shape(model) == Shape(8, 2, 4, 16)
    assert model.config.intermediate_size == 1
    expand(model)
    assert sizes_of(model) == [(2, 16)] * 4


@pytest.mark.parametrize("per_channel", [True, False])
def test_integers_are_the_same_after_removal(per_channel):
    model, kept = silenced("Bert")
    settings = Settings(per_channel=per_channel, active=True)
    modules = prepare(model, settings)
    model.train()(**BATCH)
    freeze(modules)
    before = logits(model)
    remove(model, kept)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=0)
    query = model.bert.encoder.layer[0].attention.self.query
    assert query.quant.scale.shape == ((4,) if per_channel else ())


def test_a_damaged_configuration_is_refused(tmp_path):
    model, kept = silenced("Bert")
    remove(model, kept)
    model.config.structure["heads"] = [1, 2]
    with pytest.raises(UserError, match=r"config\.json is damaged: its 'structure' \{"):
        fitting(type(model), model.config)(model.config)
