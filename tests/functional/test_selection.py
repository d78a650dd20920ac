"""Which parameters and modules a pattern or a token selects, and what a pattern without a match suggests."""

from __future__ import annotations

import pytest
from torch import nn
from transformers import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    GPT2Config,
    GPT2Model,
)

from sparse_xp.errors import UserError
from sparse_xp.functional.selection import select_modules, select_parameters
from tests.encoders import tiny_bert

MODULES = {name: i for i, name in enumerate(["a.layer.0", "a.layer.1", "a.layer.10", "b.layer.0"])}
LAYER_WEIGHTS = [
    "attention.self.query.weight",
    "attention.self.key.weight",
    "attention.self.value.weight",
    "attention.output.dense.weight",
    "intermediate.dense.weight",
    "output.dense.weight",
]


def test_encoder_token_selects_the_six_linears_of_each_layer_in_order(qa_model):
    selected = select_parameters(qa_model, ["__ENCODER__"])
    assert list(selected) == [f"bert.encoder.layer.{i}.{name}" for i in (0, 1) for name in LAYER_WEIGHTS]
    assert selected["bert.encoder.layer.1.output.dense.weight"] is qa_model.bert.encoder.layer[1].output.dense.weight


def test_encoder_token_knows_a_bare_encoder_and_distilbert():
    assert len(select_parameters(BertModel(tiny_bert()), ["__ENCODER__"])) == 12
    config = DistilBertConfig(vocab_size=100, dim=32, hidden_dim=64, n_layers=3, n_heads=2)
    distilbert = DistilBertForQuestionAnswering(config)
    selected = list(select_parameters(distilbert, ["__ENCODER__"]))
    assert len(selected) == 18
    assert selected[0] == "distilbert.transformer.layer.0.attention.q_lin.weight"


@pytest.mark.parametrize(
    ("model_class", "beyond_the_encoder"),
    [
        (BertForQuestionAnswering, ["qa_outputs.weight"]),
        (BertForSequenceClassification, ["bert.pooler.dense.weight", "classifier.weight"]),
        (BertForMaskedLM, ["cls.predictions.transform.dense.weight", "cls.predictions.decoder.weight"]),
    ],
)
def test_all_prunable_adds_pooler_and_head(model_class, beyond_the_encoder):
    model = model_class(tiny_bert())
    selected = select_parameters(model, ["__ALL_PRUNABLE__"])
    assert list(selected)[:12] == list(select_parameters(model, ["__ENCODER__"]))
    assert list(selected)[12:] == beyond_the_encoder


def test_tied_decoder_is_the_word_embedding():
    model = BertForMaskedLM(tiny_bert())
    embedding = model.bert.embeddings.word_embeddings.weight
    assert select_parameters(model, ["__ALL_PRUNABLE__"])["cls.predictions.decoder.weight"] is embedding
    names = ["cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"]
    assert list(select_parameters(model, names)) == ["bert.embeddings.word_embeddings.weight"]


def test_all_prunable_knows_convolutions_and_a_bare_linear():
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.LayerNorm(2), nn.Embedding(2, 2))
    assert list(select_parameters(model, ["__ALL_PRUNABLE__"])) == ["0.weight", "1.weight"]
    assert list(select_parameters(nn.Linear(2, 2), ["__ALL_PRUNABLE__"])) == ["weight"]


def test_all_prunable_knows_recurrent_networks_and_fused_attention():
    model = nn.Sequential(nn.LSTM(2, 3, bidirectional=True), nn.MultiheadAttention(4, 2), nn.GRU(2, 3, bias=False))
    assert list(select_parameters(model, ["__ALL_PRUNABLE__"])) == [
        "0.weight_ih_l0", "0.weight_hh_l0", "0.weight_ih_l0_reverse", "0.weight_hh_l0_reverse",
        "1.in_proj_weight", "1.out_proj.weight", "2.weight_ih_l0", "2.weight_hh_l0",
    ]  # fmt: skip


def test_the_transposed_linears_of_gpt2_are_linears():
    model = GPT2Model(GPT2Config(vocab_size=8, n_embd=4, n_layer=1, n_head=1, n_positions=8))
    names = [f"h.0.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
    assert list(select_parameters(model, ["__ENCODER__"])) == names
    assert list(select_parameters(model, ["__ALL_PRUNABLE__"])) == names


def test_all_means_all(qa_model):
    everything = [name for name, _ in qa_model.named_parameters()]
    assert list(select_parameters(qa_model, ["__ALL__"])) == everything
    assert list(select_parameters(qa_model, ["re:.*"])) == everything
    assert "bert.encoder.layer.0.output.LayerNorm.bias" in everything


def test_tokens_in_any_case_and_as_a_bare_string(qa_model):
    expected = list(select_parameters(qa_model, ["__ALL_PRUNABLE__"]))
    assert list(select_parameters(qa_model, ["__all_prunable__"])) == expected
    assert list(select_parameters(qa_model, "__All_Prunable__")) == expected


def test_regex_is_anchored_at_the_start_only():
    model = BertForQuestionAnswering(tiny_bert(num_layers=12))
    selected = select_parameters(model, ["re:bert.encoder.layer.1."])
    assert {name.split(".")[3] for name in selected} == {"1", "10", "11"}
    assert len(selected) == 48
    assert len(select_parameters(model, ["re:bert.encoder.layer.*.output.dense.weight"])) == 24
    some = "re:bert.encoder.layer.([0,2,4,6,8]|11).attention.self.query.weight"
    assert len(select_parameters(model, [some])) == 6


def test_overlapping_patterns_give_each_tensor_once(qa_model):
    patterns = [f"re:bert.encoder.layer.*.{name}" for name in reversed(LAYER_WEIGHTS)]
    assert list(select_parameters(qa_model, patterns)) == list(select_parameters(qa_model, ["__ENCODER__"]))
    assert select_parameters(qa_model, []) == {}


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("qa_output.weight", "Did you mean 'qa_outputs.weight'?"),
        ("re:qa_output.weight", "Did you mean 'qa_outputs.weight'?"),
        ("__ALL_PRUNEABLE__", "Did you mean '__ALL_PRUNABLE__'?"),
        ("bert.*.weight", "write 're:bert.*.weight'"),
        ("re:encoder.*", "matched from the start of the name: write 're:.*encoder.*'"),
    ],
)
def test_a_pattern_that_matches_nothing_says_what_to_write(qa_model, pattern, hint):
    with pytest.raises(UserError) as caught:
        select_parameters(qa_model, ["__ENCODER__", pattern])
    assert f"No parameter matches '{pattern}'." in str(caught.value)
    assert hint in str(caught.value)


def test_encoder_token_on_a_model_without_known_layers():
    assert list(select_parameters(nn.Sequential(nn.Linear(2, 2)), ["__ENCODER__"])) == ["0.weight"]
    with pytest.raises(UserError, match=r"No parameter matches '__ENCODER__'\. Name the parameters"):
        select_parameters(nn.Sequential(nn.LayerNorm(2)), ["__ENCODER__"])


def test_invalid_regex_is_a_user_error(qa_model):
    with pytest.raises(UserError, match=r"'re:bert\.\(encoder' is not a valid regular expression: missing \)"):
        select_parameters(qa_model, ["re:bert.(encoder"])


# Modules


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["a.layer.1"], ["a.layer.1"]),
        (["re:a.layer.1"], ["a.layer.1", "a.layer.10"]),  # free at the end, as for parameters
        (["re:a.layer.1$"], ["a.layer.1"]),
        (["b.layer.0", "re:a"], ["b.layer.0", "a.layer.0", "a.layer.1", "a.layer.10"]),
        (["a.layer.10", "a.layer.0", "a.layer.10"], ["a.layer.10", "a.layer.0"]),
    ],
)
def test_modules_by_pattern_in_the_order_of_the_patterns(patterns, expected):
    found = select_modules(MODULES, patterns)
    assert list(found) == expected
    assert found == {name: MODULES[name] for name in expected}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a.layers.1", r"No layer matches 'a\.layers\.1'\. Did you mean 'a\.layer\.1'\? There are: a\.layer\.0, .*"),
        ("re:layer", r"No layer matches 're:layer'"),
        ("re:((", r"'re:\(\(' is not a valid regular expression"),
    ],
)
def test_a_pattern_without_a_match(pattern, message):
    with pytest.raises(UserError, match=message):
        select_modules(MODULES, ["a.layer.0", pattern], "layer")
