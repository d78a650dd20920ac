"""What upstream pruning prunes of each kind of encoder: never an embedding, nor what is tied to one."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from sparse_xp.errors import UserError
from sparse_xp.functional.selection import select_parameters
from sparse_xp.models.heads import describe_new_heads
from sparse_xp.models.loading import load_model, load_teacher_model
from sparse_xp.modifiers import MagnitudePruning
from sparse_xp.tasks import PairPretraining
from tests.tiny import make_run, make_tokenizer

SMALL = {"vocab_size": 40, "max_position_embeddings": 16}
BERT = BertConfig(**SMALL, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
ROBERTA = RobertaConfig(**SMALL, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
DISTILBERT = DistilBertConfig(**SMALL, dim=8, n_layers=2, n_heads=2, hidden_dim=16)
#: all-MiniLM-L6-v2
MINILM = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
#: a layer has four matrices of 64 weights and two of 128; the pooler is one of 64
LAYER = 4 * 64 + 2 * 128


def count(model):
    found = select_parameters(model, ["__BODY__"])
    return len(found), sum(weight.numel() for weight in found.values())


@pytest.mark.parametrize(
    ("model", "tensors", "weights"),
    [
        (lambda: BertForPreTraining(BERT), 13, 2 * LAYER + 64),
        (lambda: BertForMaskedLM(BERT), 12, 2 * LAYER),
        (lambda: BertForSequenceClassification(BERT), 13, 2 * LAYER + 64),
        (lambda: BertModel(BERT), 13, 2 * LAYER + 64),
        (lambda: DistilBertForMaskedLM(DISTILBERT), 12, 2 * LAYER),
        (lambda: RobertaForMaskedLM(ROBERTA), 12, 2 * LAYER),
        (lambda: BertForPreTraining(MINILM), 37, 10_764_288),
    ],
    ids=["bert pairs", "bert", "bert fine-tuned", "bert bare", "distilbert", "roberta", "minilm"],
)
def test_the_body_is_the_encoder_and_the_pooler(model, tensors, weights):
    with torch.device("meta"):
        built = model()
    assert count(built) == (tensors, weights)


@pytest.mark.parametrize(
    ("model", "heads"),
    [
        (BertForMaskedLM(BERT), ["cls.predictions.transform.dense.weight"]),
        (BertForPreTraining(BERT), ["cls.predictions.transform.dense.weight", "cls.seq_relationship.weight"]),
        (DistilBertForMaskedLM(DISTILBERT), ["vocab_transform.weight"]),
        (RobertaForMaskedLM(ROBERTA), ["lm_head.dense.weight"]),
    ],
    ids=["bert", "bert pairs", "distilbert", "roberta"],
)
def test_even_all_prunable_leaves_embeddings_alone(model, heads, capsys):
    run = make_run(4, 8, model=model)
    modifier = MagnitudePruning(final_sparsity=0.5, params=["__ALL_PRUNABLE__"])
    modifier.attach(run)
    assert set(modifier.targets) == {*select_parameters(model, ["__BODY__"]), *heads}
    assert "is an embedding too, and stays dense" in capsys.readouterr().out
    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    assert tables.isdisjoint(map(id, modifier.targets.values()))


def test_an_embedding_that_is_named_is_pruned():
    model = BertForMaskedLM(BERT)
    modifier = MagnitudePruning(final_sparsity=0.5, params=["bert.embeddings.word_embeddings.weight"])
    modifier.attach(make_run(4, 8, model=model))
    assert list(modifier.targets) == ["bert.embeddings.word_embeddings.weight"]


def test_a_checkpoint_without_heads_gets_them_and_is_no_teacher(tmp_path):
    tokenizer = make_tokenizer()
    BertModel(BERT).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    task = PairPretraining(name="text", dataset=None, folder="text", max_length=16)
    model, new = load_model(task, str(tmp_path))
    assert describe_new_heads(new) == ["masked words", "next sentences"]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    with pytest.raises(UserError, match="recipe=teacher_preparation"):
        load_teacher_model(task, str(tmp_path), tokenizer)
