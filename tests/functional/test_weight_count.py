"""``sparse_xp.measure``: zeros with their denominators, of any model."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import sparse_xp
from sparse_xp.functional.measured import Zeros
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import prepare
from sparse_xp.functional.sparsity import measure_sparsity
from sparse_xp.functional.structured.removal import remove_groups
from tests.encoders import make_encoder
from tests.tiny import make_bert


@torch.no_grad()
def ones(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.fill_(1.0)
    return model


@torch.no_grad()
def zeroed(weight: torch.Tensor, count: int) -> None:
    weight.view(-1)[:count] = 0


def test_an_encoder():
    """Four matrices of 64 weights and two of 128 can be pruned; 600 parameters are in the layer, 1010 in all."""
    model = ones(make_bert())
    zeroed(model.bert.encoder.layer[0].intermediate.dense.weight, 96)
    zeroed(model.bert.encoder.layer[0].output.dense.bias, 8)
    zeroed(model.classifier.weight, 3)
    counted = sparse_xp.measure(model)
    assert (counted.prunable, counted.encoder, counted.model) == (Zeros(96, 512), Zeros(104, 600), Zeros(107, 1010))
    assert counted.layers["bert.encoder.layer.0.intermediate.dense.weight"] == Zeros(96, 128)
    assert len(counted.layers) == 6
    assert counted.compression is not None
    assert counted.compression.encoder.ratio == pytest.approx(512 / 416)
    assert (counted.removed, counted.integers) == (None, 0)
    shares = measure_sparsity(model)
    assert (shares.prunable, shares.encoder, shares.model) == (
        counted.prunable.fraction,
        counted.encoder.fraction,
        counted.model.fraction,
    )
    first, second, third, fourth = str(counted).splitlines()
    assert first == "zeros of the prunable weights: 96 of 512 (18.75%): the matrices of the encoder layers"
    assert (second, third) == (
        "zeros of the encoder layers: 104 of 600 (17.33%)",
        "zeros of the whole model: 107 of 1,010 (10.59%)",
    )
    assert fourth.startswith("compression: encoder 512 weights x 32 bits / (416 nonzero x 32 bits) = 1.2")


def test_an_encoder_inside_of_another_model():
    class Sentences(nn.Sequential):
        """As a SentenceTransformer: an encoder, then layers of its own."""

    inner = ones(make_bert().bert)
    zeroed(inner.encoder.layer[0].output.dense.weight, 64)
    counted = sparse_xp.measure(Sentences(nn.ModuleDict({"auto_model": inner}), ones(nn.Linear(8, 4))))
    assert counted.prunable == Zeros(64, 512)
    assert counted.model.weights == sum(each.numel() for each in inner.parameters()) + 36
    assert counted.compression is not None
    assert counted.compression.model.dense_weights == counted.model.weights


def test_a_sentence_transformer(tmp_path):
    library = pytest.importorskip("sentence_transformers")
    from tests.tiny import make_tokenizer

    make_bert().bert.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    counted = sparse_xp.measure(library.SentenceTransformer(str(tmp_path), device="cpu"))
    assert counted.prunable.weights == 512


def test_a_convolutional_network_and_a_perceptron():
    model = ones(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)))
    zeroed(model[0].weight, 27)
    counted = sparse_xp.measure(model)
    assert counted.layers == {"0.weight": Zeros(27, 108), "3.weight": Zeros(0, 32)}
    assert (counted.prunable, counted.model) == (Zeros(27, 140), Zeros(27, 140 + 4 + 8 + 2))
    assert (counted.encoder, counted.compression) == (None, None)
    assert "27 of 140 (19.29%): all Linears and convolutions, as it has no encoder" in str(counted)

    class Perceptron(nn.Module):
        """Its layers have the name of an encoder's."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.out = nn.Linear(4, 1)

    assert sparse_xp.measure(Perceptron()).prunable.weights == 36


def test_a_tied_matrix_counts_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert sparse_xp.measure(nn.Sequential(first, second)).prunable.weights == 16


def test_decoders():
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    gpt = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=20, n_positions=16, **ids))
    counted = sparse_xp.measure(gpt)
    assert counted.prunable.weights == 8 * 24 + 8 * 8 + 2 * 8 * 32  # lm_head is the table of embeddings
    assert counted.encoder is None
    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    llama = sparse_xp.measure(LlamaForCausalLM(LlamaConfig(vocab_size=20, **sizes)))
    assert (llama.encoder, llama.prunable.weights) == (None, 4 * 64 + 3 * 128 + 160)


def test_what_is_removed_and_what_is_in_8_bits():
    model = make_encoder("Bert", layers=2)
    full = sparse_xp.measure(model).prunable.weights
    kept = {
        f"bert.encoder.layer.{number}": (torch.tensor([True, False]), torch.ones(16, dtype=torch.bool))
        for number in range(2)
    }
    remove_groups(model, kept)
    prepare(model, QuantConfig(), QuantMode(active=True), embeddings=False)
    counted = sparse_xp.measure(model)
    assert counted.prunable.weights == full - 2 * 4 * 32
    assert counted.removed is not None
    assert counted.removed.heads == [1, 1]
    assert counted.compression is not None
    assert counted.compression.encoder.dense_weights == full
    assert counted.integers == 14  # six matrices of each layer, the pooler and the head
    assert "modules in 8 bits: 14" in str(counted)
    assert counted.removed.description in str(counted)


def test_wrappers_are_left_out():
    model = make_bert()
    assert sparse_xp.measure(torch.compile(model)).layers == sparse_xp.measure(model).layers
    assert sparse_xp.measure(nn.DataParallel(model)).layers == sparse_xp.measure(model).layers


def test_what_has_no_weights_to_count():
    with pytest.raises(sparse_xp.UserError, match=r"expected a torch\.nn\.Module, not dict"):
        sparse_xp.measure({})
    assert sparse_xp.measure(nn.ReLU()).model == Zeros(0, 0)
    with pytest.raises(sparse_xp.UserError, match=r"weight of the model has no values: it is on the device meta"):
        sparse_xp.measure(nn.Linear(4, 4, device="meta"))
    with pytest.raises(sparse_xp.UserError, match=r"0\.weight of the model has no values yet, as it is lazy"):
        sparse_xp.measure(nn.Sequential(nn.LazyLinear(4)))
    masked = nn.Sequential(nn.Linear(4, 4))
    prune.l1_unstructured(masked[0], "weight", 0.5)
    with pytest.raises(sparse_xp.UserError, match=r"0\.weight is pruned by torch\.nn\.utils\.prune.*prune\.remove"):
        sparse_xp.measure(masked)
    prune.remove(masked[0], "weight")
    assert sparse_xp.measure(masked).prunable == Zeros(8, 16)
