"""Zeros are counted exactly, over three denominators."""

from __future__ import annotations

import torch
import transformers
from torch import nn
from transformers import (
    BertForMaskedLM,
)

from sparse_xp.functional.selection import select_parameters
from sparse_xp.functional.sparsity import count_zeros, measure_sparsity
from tests.encoders import tiny_bert

# Measurement. In a layer of the tiny BERT 4*32*32 + 2*32*64 = 8192 weights are prunable; 4*32 + 64 + 32 = 224
# biases and 2*64 LayerNorm values, so 8544 in all; embeddings (100 + 16 + 2)*32 + 64 = 3840; QA head 66.
# The model: 2*8544 + 3840 + 66 = 20994.


@torch.no_grad()
def fill_with_ones(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.fill_(1.0)


@torch.no_grad()
def test_measure_states_three_denominators(qa_model):
    fill_with_ones(qa_model)
    layer = qa_model.bert.encoder.layer[0]
    layer.attention.self.query.weight.zero_()  # 1024 of 16384 prunable
    layer.output.dense.weight[:, :16] = 0  # 32 * 16 = 512 more
    layer.output.dense.bias.zero_()  # 32, not prunable but in the encoder
    qa_model.qa_outputs.weight[0, :5] = 0  # 5, in neither
    report = measure_sparsity(qa_model)
    assert report.prunable == 1536 / 16384
    assert report.encoder == 1568 / 17088
    assert report.model == 1573 / 20994
    assert len(report.layers) == 12
    assert {name: level for name, level in report.layers.items() if level} == {
        "bert.encoder.layer.0.attention.self.query.weight": 1.0,
        "bert.encoder.layer.0.output.dense.weight": 0.25,
    }
    assert measure_sparsity(qa_model, select_parameters(qa_model, ["__ALL_PRUNABLE__"])).prunable == 1541 / (16384 + 64)
    assert measure_sparsity(qa_model, "qa_outputs.weight").layers == {"qa_outputs.weight": 5 / 64}


@torch.no_grad()
def test_measure_counts_a_tied_tensor_once():
    model = BertForMaskedLM(tiny_bert())
    fill_with_ones(model)
    model.bert.embeddings.word_embeddings.weight.zero_()
    # 20994 without the QA head's 66, plus transform 32*32 + 32 + LayerNorm 64 and 100 output biases.
    assert measure_sparsity(model).model == 3200 / 22148
    tied = ["cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"]
    assert measure_sparsity(model, tied).prunable == 1.0


def test_measure_without_encoder_layers():
    model = nn.Linear(2, 2)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    report = measure_sparsity(model, ["weight"])
    # Everything below the head counts as encoder, where its layers are not known.
    assert (report.prunable, report.model, report.encoder) == (0.0, 2 / 6, 2 / 6)
    assert measure_sparsity(nn.Embedding(3, 2), []).encoder == 0.0  # nothing to count


def test_layers_that_are_not_known_are_all_below_the_head():
    """FNet's layers are known to nobody here; embeddings, pooler and head are not of the encoder."""
    config = transformers.FNetConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, intermediate_size=16)
    model = transformers.FNetForSequenceClassification(config)
    assert list(measure_sparsity(model).layers) == [
        "fnet.encoder.layer.0.intermediate.dense.weight", "fnet.encoder.layer.0.output.dense.weight"
    ]  # fmt: skip
    roots = transformers.XLMModel(transformers.XLMConfig(vocab_size=10, emb_dim=8, n_layers=1, n_heads=2))
    names = list(measure_sparsity(roots).layers)
    assert names
    assert not any("embed" in name for name in names)


def test_zeros_are_exact():
    assert count_zeros(torch.tensor([0.0, -0.0, 1e-45, 1.0, float("nan")])) == 2
    assert count_zeros(nn.Parameter(torch.zeros(2, 3))) == 6
