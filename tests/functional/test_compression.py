"""Compression against numbers worked out by hand: 90 % zeros in 8 bits make an encoder's matrices 40 times smaller."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForQuestionAnswering

from sparse_xp.functional.compression import count_removed, measure_compression
from sparse_xp.functional.factored_embeddings import factor_embeddings, select_dimensions
from sparse_xp.functional.layers import bypass_layers, encoder_layers, remove_bypassed
from sparse_xp.functional.measured import StoredWeights, compressed_part
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import prepare
from sparse_xp.functional.selection import select_parameters
from sparse_xp.functional.structured.blocks import encoder_blocks
from sparse_xp.functional.structured.removal import remove_groups
from tests.encoders import KINDS, close_layers, make_encoder

# One layer of hidden size 40 and 80 neurons: 4 * 40 * 40 + 2 * 40 * 80 = 12,800 weights in its matrices, 6 * 40 biases
# for 240 outputs and 80 for the neurons less the 40 counted twice: 4 * 40 + 80 + 40 = 280, and 4 * 40 of LayerNorm.
# Embeddings: (50 words + 10 positions + 2 segments) * 40 + 80 of LayerNorm = 2560. Head: 2 * 40 + 2 = 82.
MATRICES, REST = 12_800, 280 + 160
TABLES, EMBEDDING_NORM, HEAD_WEIGHTS, HEAD_BIASES = 62 * 40, 80, 80, 2


@torch.no_grad()
def make_sparse(tenths: int) -> BertForQuestionAnswering:
    """Return the model of ones with so many tenths of each of its layer's matrices zero."""
    config = BertConfig(
        vocab_size=50, hidden_size=40, num_hidden_layers=1, num_attention_heads=2, intermediate_size=80,
        max_position_embeddings=10,
    )  # fmt: skip
    model = BertForQuestionAnswering(config)
    for parameter in model.parameters():
        parameter.fill_(1.0)
    for weight in select_parameters(model, ["__ENCODER__"]).values():
        weight.view(-1)[: weight.numel() * tenths // 10] = 0
    return model


def test_forty_times_by_hand():
    """1,280 of 12,800 weights are left: 12,800 * 4 bytes / 1,280 bytes."""
    model = make_sparse(9)
    prepare(model, QuantConfig(), QuantMode(active=True))
    measured = measure_compression(model)
    encoder, whole = measured.encoder, measured.model
    assert (encoder.dense_weights, encoder.dense_bytes) == (12_800, 51_200)
    assert (encoder.nonzero, encoder.bits, encoder.nonzero_bytes, encoder.ratio) == (1280, 8, 1280, 40)
    # A bit for each of the 12,800: 1,600 bytes more.
    assert (encoder.masked_bytes, encoder.masked_ratio) == (2880, pytest.approx(17.7778, abs=1e-4))
    assert encoder.arithmetic == "12,800 weights x 32 bits / (1,280 nonzero x 8 bits) = 40.0"
    dense = MATRICES + REST + TABLES + EMBEDDING_NORM + HEAD_WEIGHTS + HEAD_BIASES
    integers, floats = 1280 + TABLES + HEAD_WEIGHTS, REST + EMBEDDING_NORM + HEAD_BIASES
    assert (whole.dense_weights, whole.nonzero) == (dense, integers + floats) == (15_882, 4362)
    assert whole.nonzero_bytes == integers + 4 * floats == 5928
    assert whole.ratio == 4 * 15_882 / 5928
    assert whole.masked_bytes == 5928 + 1600  # tensors without zeros need no mask
    assert whole.arithmetic == "15,882 weights x 32 bits / (3,840 nonzero x 8 bits + 522 nonzero x 32 bits) = 10.7"
    assert measured.ratios == "40.0 / 10.7"


@pytest.mark.parametrize(("tenths", "ratio", "masked"), [(9, 10, 32 / 4.2), (0, 1, 1)])
def test_in_floating_point(tenths, ratio, masked):
    """A dense model needs no mask. 90 %: 32 bits for a tenth of the weights, and one for each."""
    encoder = measure_compression(make_sparse(tenths)).encoder
    assert (encoder.bits, encoder.ratio, encoder.masked_ratio) == (32, ratio, pytest.approx(masked))


@pytest.mark.parametrize(
    ("weights", "share", "ratio", "masked"),
    [(301_989_888, 10, 40, 17.78), (84_934_656, 10, 40, 17.78), (301_989_888, 20 / 3, 26.67, 14.55)],
    ids=["BERT-large, 90 %", "BERT-base, 90 %", "BERT-large, 85 %"],
)
def test_published_ratios(weights, share, ratio, masked):
    """Prune Once for All states 40 for 90 % in 8 bits."""
    part = compressed_part(weights, [StoredWeights(weights, round(weights / share), 8)])
    assert (round(part.ratio, 2), round(part.masked_ratio, 2)) == (ratio, masked)


def test_nothing_has_no_ratio():
    assert math.isnan(compressed_part(0, []).ratio)
    assert compressed_part(8, [StoredWeights(8, 0, 32)]).ratio == math.inf


def sizes(model: nn.Module) -> tuple[int, int]:
    """Return the number of weights of the encoder's matrices and of all parameters."""
    matrices = select_parameters(model, ["__ENCODER__"]).values()
    return sum(weight.numel() for weight in matrices), sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_removed_heads_neurons_and_layers_count_as_dense(kind):
    full = sizes(make_encoder(kind))
    model = make_encoder(kind)
    kept = close_layers(model, 2)
    for number, block in enumerate(encoder_blocks(model)):
        if number != 2:
            kept[block.name] = torch.tensor([True, number == 0]), torch.arange(16) < 4 + number
    remove_groups(model, kept)
    assert tuple(now + taken for now, taken in zip(sizes(model), count_removed(model), strict=True)) == full
    assert measure_compression(model).encoder.dense_weights == full[0]


def test_dropped_layers_count_as_dense():
    full, model = sizes(make_encoder("Bert")), make_encoder("Bert")
    bypass_layers(model, list(encoder_layers(model))[1:3])
    remove_bypassed(model)
    assert measure_compression(model, dropped_layers=2).model.dense_weights == full[1]
    assert measure_compression(model, dropped_layers=2).encoder.ratio == pytest.approx(2, rel=0.01)


def test_factored_embeddings_count_as_one_table():
    full, model = sizes(make_encoder("Bert")), make_encoder("Bert")
    factor_embeddings(model)
    select_dimensions(model, torch.arange(8) < 2)
    assert count_removed(model) == (0, 30 * 8 - (30 * 2 + 8 * 2))
    assert measure_compression(model).model.dense_weights == full[1]
