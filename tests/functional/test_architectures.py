"""The table of architectures against the models of transformers."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from sparse_xp.functional.architectures import (
    ARCHITECTURES,
    IN_ANY_LAYER,
    IN_LAYER,
    LAYER,
    OFFSET_POSITIONS,
    Architecture,
    architecture_of,
    dropout_keys,
    is_matrix,
    known_models,
    layer_count,
    longest_text,
    neurons_key,
    same_input,
)
from sparse_xp.functional.layers import weighted_paths

#: a model of each row that is not called by the row's name, and what its configuration has besides the sizes
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "XLM-R": ("xlm-roberta", {}),
    "DeBERTa-v2": ("deberta-v2", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "DeBERTa-v3": ("deberta-v2", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}),
    "ModernBERT": ("modernbert", {"pad_token_id": 0}),
    "NomicBERT": ("nomic_bert", {"pad_token_id": 0}),
    "EuroBERT": ("eurobert", {"pad_token_id": 0, "num_key_value_heads": 4}),
}
MODELS = [(row, model) for row in ARCHITECTURES for model in row.models]


def build(row: Architecture, model: str) -> Any:
    kind, more = CONFIGS.get(model, (model.lower(), {}))
    keys = {row.layers_key: 2, row.heads_key: 4, row.neurons_key: 24, row.hidden_key: 16}
    return AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=10, **keys, **more))


@pytest.mark.parametrize(("row", "model"), MODELS, ids=[model for _, model in MODELS])
def test_a_row_is_what_transformers_builds(row: Architecture, model: str):
    encoder = build(row, model)
    layers = {name: layer for name, layer in encoder.named_modules() if LAYER.search(name)}
    assert [name.rpartition(".")[2] for name in layers] == (["0"] if row.shares_layers else ["0", "1"])
    for name, layer in layers.items():
        modules = dict(layer.named_modules())
        linears = {path: module for path, module in modules.items() if isinstance(module, nn.Linear)}
        assert architecture_of(encoder.config.model_type, weighted_paths(layer)) is row
        assert getattr(modules[row.self_attention], row.head_size) == 4
        assert row.linears <= linears.keys() <= row.linears.union(row.position_projections)
        assert all(linears[path].out_features == 16 * row.attention_parts for path in row.query_key_value)
        assert all(linears[path].out_features == 24 * row.up_parts for path in row.up)
        assert (linears[row.down].in_features, linears[row.attention_output].in_features) == (24, 16)
        assert all(IN_LAYER.search(f"{name}.{path}.weight")["number"] == name[-1] for path in linears)
        assert all(hasattr(layer, name) for name in row.layer_attributes)
    embeddings = [name for name, module in encoder.named_modules() if isinstance(module, nn.Embedding)]
    assert {name for name in embeddings if is_matrix(name)} == set(row.matrices)
    assert neurons_key(encoder.config) == row.neurons_key
    assert layer_count(encoder.config.to_dict()) == 2
    assert dropout_keys(encoder.config)
    if row.layer_list_key:
        assert len(getattr(encoder.config, row.layer_list_key)) == 2


@pytest.mark.parametrize(
    "kind", ["big_bird", "convbert", "deberta", "esm", "mobilebert", "nystromformer", "squeezebert"]
)
def test_a_layer_with_other_parts_is_of_no_row(kind: str):
    """ConvBERT has BERT's names and convolutions besides; BigBird has its names alone."""
    encoder = AutoModel.from_config(AutoConfig.for_model(kind, num_hidden_layers=1, vocab_size=30, pad_token_id=0))
    layers = [layer for name, layer in encoder.named_modules() if LAYER.search(name)]
    assert all(architecture_of(kind, weighted_paths(layer)) is None for layer in layers)
    assert all(
        architecture_of("bert", weighted_paths(layer)) is None
        for layer in layers
        if kind in ("convbert", "nystromformer")
    )


def position_tables(kind: str) -> list[nn.Embedding]:
    with torch.device("meta"):
        encoder = AutoModel.from_config(AutoConfig.for_model(kind))
    return [
        module for name, module in encoder.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["albert", "bert", "camembert", "data2vec-text", "distilbert", "electra", "ernie",
             "longformer", "megatron-bert", "mpnet", "rembert", "roberta", "roberta-prelayernorm",
             "xlm-roberta", "xlm-roberta-xl", "xmod"]
)  # fmt: skip
def test_models_whose_positions_begin_after_the_padding_token(kind: str):
    """They give the padding token a position of its own, which no text uses."""
    assert [table.padding_idx is not None for table in position_tables(kind)] == [kind in OFFSET_POSITIONS]


def test_the_longest_text():
    assert longest_text({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}) == 512
    assert longest_text({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}) == 512
    assert longest_text({"model_type": "xlm-roberta", "max_position_embeddings": 514}) == 512
    assert longest_text({"model_type": "modernbert", "max_position_embeddings": 8192, "pad_token_id": 50283}) == 8192
    relative = {"model_type": "deberta-v2", "max_position_embeddings": 512, "position_biased_input": False}
    assert longest_text(relative) is None
    assert longest_text({"model_type": "xlnet"}) is None
    for positions in (2, "514", True, 1.5):
        with pytest.raises(ValueError, match="max_position_embeddings"):
            longest_text({"model_type": "roberta", "max_position_embeddings": positions, "pad_token_id": 1})


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
    assert IN_LAYER.search("albert.encoder.albert_layer_groups.0.albert_layers.1.ffn.weight")["number"] == "1"
    assert not IN_LAYER.search("model.sublayers.11.mlp.weight")


def test_linears_of_one_input():
    assert same_input("key") == ("query", "key", "value")
    assert same_input("v_lin") == ("q_lin", "k_lin", "v_lin")
    assert same_input("dense") == ("dense",)


def test_unknown_layers():
    assert architecture_of("modernbert", {"mlp.Wi", "attn.Wqkv"}) is None
    assert layer_count({}) is None
    assert known_models().startswith("BERT, RoBERTa, XLM-R, ELECTRA, DistilBERT, MPNet")
    assert known_models().endswith("EuroBERT and ALBERT")
    assert known_models(structured=True).endswith("NomicBERT and EuroBERT")


def test_no_torch():
    code = "import sys, sparse_xp.functional.architectures; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
