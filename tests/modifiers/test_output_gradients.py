"""Scores of heads and neurons of a model that embeds texts, which begins as its own teacher."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from transformers import BertConfig, BertModel

from sparse_xp.functional.structured.blocks import encoder_blocks, linear_at
from sparse_xp.models.embedding_model import EMBEDDING, add_sentence_head, embedding_class
from sparse_xp.models.sentence_modules import SentenceHead
from sparse_xp.modifiers.structured.gradients import BATCHES, output_gradients
from sparse_xp.tasks import SentenceEmbedding

TASK = SentenceEmbedding(name="texts", dataset=None)


def small_model() -> BertModel:
    """Two heads of 4 and 8 neurons in one layer. No head but the second, and no neuron but the last, has an effect."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16,
    )  # fmt: skip
    model = embedding_class(BertModel)(config)
    add_sentence_head(model, SentenceHead())
    [block] = encoder_blocks(model)
    with torch.no_grad():
        linear_at(model, block.output).weight[:, :4] = 0
        linear_at(model, block.down).weight[:, :7] = 0
    return model.train()


def test_scores_say_what_the_embeddings_depend_on_where_the_loss_of_training_says_nothing():
    model = small_model()
    tokens = torch.randint(5, 30, (4, 6), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    asked: list[tuple[int, int | None, int]] = []

    def gradient_batches(*arguments):
        asked.append(arguments)
        return iter([batch] * arguments[0])

    context = SimpleNamespace(
        model=model,
        accelerator=SimpleNamespace(num_processes=1),
        gradient_batches=gradient_batches,
        task_loss=lambda batch: TASK.curvature_loss(model, batch),
    )
    blocks = encoder_blocks(model)

    found = list(output_gradients(context, blocks, {}, "first_order"))

    assert asked == [(BATCHES, None, 0)]
    assert len(found) == BATCHES
    heads, neurons = found[0][blocks[0].output], found[0][blocks[0].down]
    assert heads[0] == 0
    assert heads[1] != 0
    assert not neurons[:7].any()
    assert neurons[7] != 0
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():  # dropout is off while the scores are computed: the same batch has the same gradients
        assert torch.equal(found[0][blocks[0].output], found[-1][blocks[0].output])
    assert model(**batch)[EMBEDDING].shape == (4, 8)
