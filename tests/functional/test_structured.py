"""Heads and neurons scored, silenced, cut out and loaded, in every kind of encoder that can be reduced."""

from __future__ import annotations

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.expand import main as expand_command
from sparse_xp.functional.architectures import ARCHITECTURES
from sparse_xp.functional.cost_model import LayerShape
from sparse_xp.functional.measured import Removed
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import freeze, prepare
from sparse_xp.functional.structured.blocks import encoder_blocks, linear_at, sizes_of
from sparse_xp.functional.structured.config import full_shape, removal_summary, removed_layer_numbers
from sparse_xp.functional.structured.loading import expand_model, reduced_class
from sparse_xp.functional.structured.removal import (
    count_nonzero_groups,
    remove_groups,
    select_groups,
    shrink,
    zero_groups,
)
from sparse_xp.functional.structured.scores import gate_gradients, squared_norms, without_lowest
from sparse_xp.models.reduced import load_reduced_model
from tests.encoders import BATCH, KINDS, SHAPES, close_layers, logits, make_encoder, removed_share

T = torch.tensor

#: uneven: 2 heads of 4 wide, 16 neurons in the full shape
KEPT = [((1, 0), 5), ((1, 1), 16), ((0, 1), 16), ((1, 0), 1)]


def kept_of(model):
    return {
        block.name: (T(heads, dtype=torch.bool), torch.arange(16) < neurons)
        for block, (heads, neurons) in zip(encoder_blocks(model), KEPT, strict=True)
    }


def silenced(kind):
    """A model whose silenced groups are zero, and what it keeps."""
    model = make_encoder(kind)
    kept = kept_of(model)
    for block in encoder_blocks(model):
        for name, mask in block.linear_masks(*kept[block.name]).items():
            zero_groups(linear_at(model, name), mask)
    return model, kept


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
    assert (count_nonzero_groups(layer, rows), count_nonzero_groups(layer, columns)) == (4, 2)
    zero_groups(layer, rows, gradients=True)
    assert (layer.weight.grad.tolist(), layer.bias.grad.tolist()) == ([[0.0] * 3, [1.0] * 3], [0.0, 1.0])
    zero_groups(layer, columns)
    assert layer.weight.tolist() == [[1.0, 0.0, 3.0], [4.0, 0.0, 6.0]]
    assert (count_nonzero_groups(layer, rows), count_nonzero_groups(layer, columns)) == (3, 0)
    weight = layer.weight
    shrink(layer, columns)
    shrink(layer, rows)
    assert layer.weight is weight
    assert (layer.weight.tolist(), layer.bias.tolist()) == ([[4.0, 6.0]], [8.0])
    assert (layer.in_features, layer.out_features) == (2, 1)
    assert select_groups(T([1, 2]), rows).tolist() == [2]


# Whole models


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_know_heads_and_neurons(kind):
    model = make_encoder(kind)
    assert sizes_of(model) == [(2, 16)] * 4
    assert full_shape(model) == SHAPES[kind]
    assert removal_summary(model) is None
    assert encoder_blocks(model)[1].name == f"{KINDS[kind][0]}.1"


def test_another_kind_of_encoder_is_refused():
    config = transformers.AlbertConfig(
        vocab_size=30, embedding_size=8, hidden_size=8, num_attention_heads=2, intermediate_size=16
    )
    with pytest.raises(UserError, match="AlbertModel uses one layer several times, so that heads, neurons and lay"):
        encoder_blocks(transformers.AlbertModel(config))
    convolutions = transformers.ConvBertConfig(vocab_size=30, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    with pytest.raises(UserError, match="ConvBertModel has layers of an unknown kind"):
        encoder_blocks(transformers.ConvBertModel(convolutions))


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_same_before_and_after_removal_and_after_loading(tmp_path, kind):
    model, kept = silenced(kind)
    before = logits(model)
    remove_groups(model, kept)
    torch.testing.assert_close(logits(model), before, atol=1e-6, rtol=0)
    assert sizes_of(model) == [(1, 5), (2, 16), (1, 16), (1, 1)]
    assert removal_summary(model).share == pytest.approx(removed_share(kind, 5, 38))
    if kind == "Bert":  # 5 of 8 heads and 38 of 64 neurons are left, of 4 * 8 * 4 and 2 * 8 weights each
        assert removal_summary(model).share == pytest.approx(1 - (5 * 128 + 38 * 16) / (8 * 128 + 64 * 16))
    model.save_pretrained(tmp_path)
    loaded = load_reduced_model(tmp_path)
    assert type(loaded).__name__ == type(model).__name__
    assert (sizes_of(loaded), full_shape(loaded), removal_summary(loaded)) == (
        sizes_of(model),
        SHAPES[kind],
        removal_summary(model),
    )
    # DeBERTa's products of matrices are rounded differently where the weights lie differently in memory.
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-6 if kind == "DebertaV2" else 0, rtol=0)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        type(model).from_pretrained(tmp_path)
    # MPNet and DeBERTa have to know how many heads, and which, are left; NomicBERT is saved under other names.
    if kind in ("MPNet", "DebertaV2", "NomicBert"):
        return
    # The few lines of docs/structured.md, without this package
    stock = type(model)(transformers.AutoConfig.from_pretrained(tmp_path))
    for name, values in load_file(tmp_path / "model.safetensors").items():
        module, _, parameter = name.rpartition(".")
        setattr(stock.get_submodule(module), parameter, nn.Parameter(values))
    assert torch.equal(logits(stock), logits(model))


#: what a configuration of such a model has besides the sizes
RELATIVES: dict[str, dict[str, object]] = {
    "electra": {"embedding_size": 8},
    "eurobert": {"num_key_value_heads": 2},
    "megatron-bert": {"hidden_act": "relu"},
    "rembert": {"input_embedding_size": 8},
    "roformer": {"embedding_size": 8},
}
MODEL_TYPES = [(row, kind) for row in ARCHITECTURES if not row.shares_layers for kind in row.model_types]


@pytest.mark.parametrize(("row", "model_type"), MODEL_TYPES, ids=[kind for _, kind in MODEL_TYPES])
def test_every_model_type_computes_the_same_without_silenced_groups(row, model_type):
    torch.manual_seed(0)
    sizes = {row.layers_key: 2, row.heads_key: 2, row.neurons_key: 16, row.hidden_key: 8}
    more = {"vocab_size": 30, "pad_token_id": 0, **RELATIVES.get(model_type, {})}
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(model_type, **sizes, **more)).eval()
    kept = {
        block.name: (T([number % 2 == 1, number % 2 == 0]), torch.arange(16) % 3 > 0)
        for number, block in enumerate(encoder_blocks(model))
    }
    for block in encoder_blocks(model):
        for name, mask in block.linear_masks(*kept[block.name]).items():
            zero_groups(linear_at(model, name), mask)
    with torch.no_grad():
        before = model(**BATCH).last_hidden_state
        remove_groups(model, kept)
        torch.testing.assert_close(model(**BATCH).last_hidden_state, before, atol=1e-5, rtol=0)
    assert sizes_of(model) == [(1, 10)] * 2


def test_heads_that_are_not_a_part_of_the_hidden_size(tmp_path):
    torch.manual_seed(0)
    config = transformers.NomicBertConfig(
        vocab_size=30, hidden_size=8, num_attention_heads=2, head_dim=8, num_hidden_layers=2, intermediate_size=16
    )
    model = transformers.NomicBertModel(config).eval()
    assert full_shape(model) == LayerShape(8, 2, 8, 16, gated=True)
    kept = {block.name: (T([False, True]), torch.arange(16) < 8) for block in encoder_blocks(model)}
    remove_groups(model, kept)
    model.save_pretrained(tmp_path)
    loaded = load_reduced_model(tmp_path)
    assert (sizes_of(loaded), full_shape(loaded).heads) == ([(1, 8)] * 2, 2)
    torch.testing.assert_close(loaded(**BATCH).last_hidden_state, model(**BATCH).last_hidden_state)


def test_grouped_queries_are_refused():
    config = transformers.EuroBertConfig(
        vocab_size=30, hidden_size=8, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=1,
        intermediate_size=16, pad_token_id=0,
    )  # fmt: skip
    with pytest.raises(UserError, match="EuroBertModel has layers of an unknown kind"):
        encoder_blocks(transformers.EuroBertModel(config))


@pytest.mark.parametrize("kind", KINDS)
def test_neurons_alone_leave_a_stock_model(tmp_path, kind):
    model = make_encoder(kind)
    kept = {block.name: (torch.ones(2, dtype=torch.bool), torch.arange(16) % 2 == 0) for block in encoder_blocks(model)}
    for block in encoder_blocks(model):
        for name, mask in block.linear_masks(*kept[block.name]).items():
            zero_groups(linear_at(model, name), mask)
    before = logits(model)
    remove_groups(model, kept)
    model.save_pretrained(tmp_path)
    stock, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits(stock), before, atol=1e-6, rtol=0)
    assert full_shape(stock) == SHAPES[kind]
    assert removal_summary(stock).share == pytest.approx(removed_share(kind, 8, 32))


@pytest.mark.parametrize("kind", KINDS)
def test_expanded_a_stock_model_has_the_same_logits(tmp_path, kind):
    model, kept = silenced(kind)
    remove_groups(model, kept)
    before = logits(model)
    model.save_pretrained(tmp_path / "small")
    (tmp_path / "small/tokenizer.json").write_text("{}")
    expand_command([f"model={tmp_path}/small", f"out={tmp_path}/whole"])
    stock, info = type(model).from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits(stock), before, atol=1e-6, rtol=0)
    assert (sizes_of(stock), removal_summary(stock)) == ([(2, 16)] * 4, None)
    assert (tmp_path / "whole/tokenizer.json").is_file()
    with pytest.raises(UserError, match="is left as it is"):
        expand_command([f"model={tmp_path}/small", f"out={tmp_path}/whole"])
    with pytest.raises(UserError, match="has its full shape: nothing was removed"):
        expand_command([f"model={tmp_path}/whole", f"out={tmp_path}/again"])
    with pytest.raises(UserError, match=r"is no model directory: it has no config\.json"):
        expand_command([f"model={tmp_path}", f"out={tmp_path}/again"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_keeps_nothing_goes_whole(tmp_path, kind):
    model = make_encoder(kind)
    kept = close_layers(model, 1, 2)
    before = logits(model)
    remove_groups(model, kept)
    torch.testing.assert_close(logits(model), before, atol=1e-6, rtol=0)
    assert (sizes_of(model), removed_layer_numbers(model), full_shape(model)) == (
        [(2, 16)] * 2,
        [1, 2],
        SHAPES[kind],
    )
    assert removal_summary(model).share == pytest.approx(0.5)
    assert (
        removal_summary(model).description
        == "50.0% of the encoder removed (heads 2 in 2 layers; neurons 16 in 2 layers; without layers 1 2)"
    )
    model.save_pretrained(tmp_path)
    stock, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for loaded in (stock, load_reduced_model(tmp_path)):
        torch.testing.assert_close(logits(loaded), before, atol=1e-6, rtol=0)
        assert removal_summary(loaded) == removal_summary(model)


def test_layers_are_counted_in_the_full_model_by_a_second_removal():
    model = make_encoder("Bert")
    remove_groups(model, close_layers(model, 1))
    kept = close_layers(model, 1)  # the third of the first four
    block = encoder_blocks(model)[2]
    kept[block.name] = T([True, False]), torch.arange(16) < 8
    for name, mask in block.linear_masks(*kept[block.name]).items():
        zero_groups(linear_at(model, name), mask)
    before = logits(model)
    remove_groups(model, kept)
    torch.testing.assert_close(logits(model), before, atol=1e-6, rtol=0)
    assert removal_summary(model) == Removed(1 - (1 + 0.5) / 4, [2, 1], [16, 8], [1, 2])
    expand_model(model)
    torch.testing.assert_close(logits(model), before, atol=1e-6, rtol=0)
    assert (sizes_of(model), removal_summary(model)) == ([(2, 16)] * 2, None)


def test_a_graph_that_is_still_held_does_not_hinder_the_smaller_model():
    model = make_encoder("Bert").train()
    held = model(**BATCH).logits.sum()
    name = "bert.encoder.layer.0"
    kept = close_layers(model)
    kept[name] = torch.tensor([True, False]), torch.arange(16) < 4
    remove_groups(model, kept)
    model(**BATCH).logits.sum().backward()
    assert model.get_submodule(f"{name}.intermediate.dense").weight.grad.shape == (4, 8)
    assert held.requires_grad


def test_removal_twice():
    model, kept = silenced("Bert")
    remove_groups(model, kept)
    second = {
        block.name: (torch.ones(heads, dtype=torch.bool), torch.arange(neurons) < 1)
        for block, (heads, neurons) in zip(encoder_blocks(model), sizes_of(model), strict=True)
    }
    remove_groups(model, second)
    assert sizes_of(model) == [(1, 1), (2, 1), (1, 1), (1, 1)]
    assert full_shape(model) == LayerShape(8, 2, 4, 16)
    assert model.config.intermediate_size == 1
    expand_model(model)
    assert sizes_of(model) == [(2, 16)] * 4


@pytest.mark.parametrize("per_channel", [True, False])
def test_integers_are_the_same_after_removal(per_channel):
    model, kept = silenced("Bert")
    modules = prepare(model, QuantConfig(per_channel=per_channel), QuantMode(active=True))
    model.train()(**BATCH)
    freeze(modules)
    before = logits(model)
    remove_groups(model, kept)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=0)
    query = model.bert.encoder.layer[0].attention.self.query
    assert query.quant.scale.shape == ((4,) if per_channel else ())


def test_a_damaged_configuration_is_refused(tmp_path):
    model, kept = silenced("Bert")
    remove_groups(model, kept)
    model.config.structure["heads"] = [1, 2]
    with pytest.raises(UserError, match=r"config\.json is damaged: its 'structure' \{"):
        reduced_class(type(model), model.config)(model.config)
