"""Word embeddings as a product: the same at first, silenced, cut, saved, loaded and made one table again."""

from __future__ import annotations

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.expand import main as expand_command
from sparse_xp.functional.factored_embeddings import (
    FactoredEmbedding,
    count_nonzero_dimensions,
    factor_embeddings,
    find_factored,
    principal_factors,
    select_dimensions,
    unfactor,
    zero_dimensions,
)
from sparse_xp.functional.measured import Removed
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import freeze, prepare
from sparse_xp.functional.structured.config import removal_summary
from sparse_xp.functional.structured.loading import reduced_class
from sparse_xp.models.reduced import load_reduced_model
from tests.encoders import BATCH, KINDS, close_layers, logits, make_encoder

T = torch.tensor
KEPT = T([True, True, False, True, False, False, True, False])


def test_principal_axes_by_hand():
    """Rows along (1, 1) of length 2 and 4, and along (1, -1) of length 1: the longer axis comes first."""
    root = 0.5**0.5
    weight = T([[2.0, 2.0], [4.0, 4.0], [1.0, -1.0]]) * root
    table, axes = principal_factors(weight)
    assert axes.abs().tolist() == [pytest.approx([root, root])] * 2
    assert table.abs().tolist() == [
        pytest.approx(row, abs=1e-6) for row in ([2.0, 0.0], [4.0, 0.0], [0.0, 2 * root * root])
    ]
    torch.testing.assert_close(table @ axes.T, weight)


def test_silence_and_cut_by_hand():
    pair = FactoredEmbedding.like(nn.Embedding(2, 1), 3)
    pair.table.weight.data, pair.projection.weight.data = T([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), T([[1.0, 10.0, 100.0]])
    kept = T([True, False, True])
    assert pair(T([1])).item() == 4 + 50 + 600
    assert count_nonzero_dimensions(pair, kept) == 3
    zero_dimensions(pair, kept)
    assert count_nonzero_dimensions(pair, kept) == 0
    assert pair.table.weight.tolist() == [[1.0, 0.0, 3.0], [4.0, 0.0, 6.0]]
    assert pair.projection.weight.tolist() == [[1.0, 0.0, 100.0]]
    assert pair(T([1])).item() == 4 + 600


@pytest.mark.parametrize("kind", KINDS)
def test_factored_cut_saved_loaded_and_merged(tmp_path, kind):
    model = make_encoder(kind)
    before = logits(model)
    pair = factor_embeddings(model)
    assert (find_factored(model), factor_embeddings(model)) == (pair, pair)
    assert (pair.table.weight.shape, pair.projection.weight.shape) == ((30, 8), (8, 8))
    torch.testing.assert_close(logits(model), before, atol=1e-6, rtol=0)

    zero_dimensions(pair, KEPT)
    silent, weight = logits(model), pair.table.weight
    assert not torch.allclose(silent, before, atol=1e-6)
    select_dimensions(model, KEPT)
    torch.testing.assert_close(logits(model), silent, atol=1e-6, rtol=0)
    assert pair.table.weight is weight
    assert (weight.shape, pair.projection.weight.shape, pair.final_dimensions) == ((30, 4), (8, 4), 4)
    assert removal_summary(model) == Removed(0.0, [2] * 4, [16] * 4, [], 4)
    assert removal_summary(model).description.endswith("neurons 16 in 4 layers; embeddings of 4 dimensions)")

    model.save_pretrained(tmp_path / "small")
    loaded = load_reduced_model(tmp_path / "small")
    assert torch.equal(logits(loaded), logits(model))
    assert removal_summary(loaded) == removal_summary(model)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):  # and not a warning and a table of noise
        type(model).from_pretrained(tmp_path / "small")
    if kind != "NomicBert":  # transformers saves it under other names
        # The few lines of docs/structured.md, without this package
        stock = type(model)(transformers.AutoConfig.from_pretrained(tmp_path / "small"))
        stock.set_input_embeddings(nn.Sequential())
        stock.get_input_embeddings().add_module("table", nn.Embedding(1, 1))
        stock.get_input_embeddings().add_module("map", nn.Linear(1, 1, bias=False))
        for name, values in load_file(tmp_path / "small/model.safetensors").items():
            module, _, parameter = name.rpartition(".")
            setattr(stock.get_submodule(module), parameter, nn.Parameter(values))
        assert torch.equal(logits(stock), logits(model))

    expand_command([f"model={tmp_path}/small", f"out={tmp_path}/whole"])
    whole, info = type(model).from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits(whole), silent, atol=1e-6, rtol=0)
    assert removal_summary(whole) is None


def test_with_layers_that_went():
    from sparse_xp.functional.structured.removal import remove_groups

    model = make_encoder("Bert")
    factor_embeddings(model)
    zero_dimensions(find_factored(model), KEPT)
    kept = close_layers(model, 2)
    before = logits(model)
    remove_groups(model, kept)
    select_dimensions(model, KEPT)
    torch.testing.assert_close(logits(model), before, atol=1e-6, rtol=0)
    assert removal_summary(model) == Removed(0.25, [2] * 3, [16] * 3, [2], 4)
    again = reduced_class(type(model), model.config)(model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("per_channel", [True, False])
def test_integers_are_the_same_after_the_cut(per_channel):
    model = make_encoder("Bert")
    pair = factor_embeddings(model)
    zero_dimensions(pair, KEPT)
    modules = prepare(model, QuantConfig(per_channel=per_channel), QuantMode(active=True))
    assert {"bert.embeddings.word_embeddings.table", "bert.embeddings.word_embeddings.map"} < set(modules)
    model.train()(**BATCH)
    freeze(modules)
    before = logits(model)
    select_dimensions(model, KEPT)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=0)


def test_one_table_is_left_alone():
    model = make_encoder("Bert")
    before = model.bert.embeddings.word_embeddings
    unfactor(model)
    assert (find_factored(model), model.bert.embeddings.word_embeddings) == (None, before)


def test_a_table_that_predicts_words_is_refused():
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    with pytest.raises(UserError, match="BertForMaskedLM predicts words with the table of its embeddings"):
        factor_embeddings(transformers.BertForMaskedLM(config))
