"""The table of architectures against the models of transformers."""

import subprocess
import sys

import pytest
from torch import nn
from transformers import AutoConfig, AutoModel

from sparse_xp.functional.architectures import (
    ARCHITECTURES,
    IN_ANY_LAYER,
    IN_LAYER,
    LAYER,
    Architecture,
    architecture_of,
    known_models,
    layer_count,
    neurons_key,
    same_input,
)

MODELS = [(row, model) for row in ARCHITECTURES for model in row.models]


@pytest.mark.parametrize(("row", "model"), MODELS, ids=[model for _, model in MODELS])
def test_a_row_is_what_transformers_builds(row: Architecture, model: str):
    keys = {row.layers_key: 2, row.heads_key: 4, row.neurons_key: 24, row.hidden_key: 16}
    config = AutoConfig.for_model(model.lower(), vocab_size=10, **keys)
    encoder = AutoModel.from_config(config)
    layers = {name: layer for name, layer in encoder.named_modules() if LAYER.search(name)}
    assert list(layers) == [f"{row.layers}.0", f"{row.layers}.1"]
    for name, layer in layers.items():
        modules = dict(layer.named_modules())
        assert architecture_of(modules) is row
        assert modules[row.self_attention].attention_head_size == 4
        linears = {path for path, module in modules.items() if isinstance(module, nn.Linear)}
        assert linears == {*row.query_key_value, row.attention_output, row.up, row.down}
        assert (modules[row.up].out_features, modules[row.down].in_features) == (24, 24)
        assert all(IN_LAYER.search(f"{name}.{path}.weight")["number"] == name[-1] for path in linears)
    assert neurons_key(config) == row.neurons_key
    assert layer_count(config.to_dict()) == 2


def test_names_outside_of_the_layers():
    for name in (
        "bert.pooler.dense.weight",
        "classifier.weight",
        "bert.encoder.layer_norm.weight",
        "myencoder.layer.0.x",
    ):
        assert not IN_LAYER.search(name)
        assert not LAYER.search(name)
    assert IN_ANY_LAYER.search("model.layers.11.mlp.weight")["number"] == "11"
    assert not IN_LAYER.search("model.layers.11.mlp.weight")


def test_linears_of_one_input():
    assert same_input("key") == ("query", "key", "value")
    assert same_input("v_lin") == ("q_lin", "k_lin", "v_lin")
    assert same_input("dense") == ("dense",)


def test_unknown_layers():
    assert architecture_of({"mlp.Wi", "attn.Wqkv"}) is None
    assert layer_count({}) is None
    assert known_models() == "BERT, RoBERTa, ELECTRA and DistilBERT"


def test_no_torch():
    code = "import sys, sparse_xp.functional.architectures; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
