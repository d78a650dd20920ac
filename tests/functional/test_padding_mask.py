"""Masks that are made without reading their values give the outputs of those that transformers makes."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModel

from sparse_xp.functional.padding_mask import UNREAD_ATTENTION, has_padding, unread_mask, unread_masks

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "camembert", "xlm-roberta"])
def test_outputs_are_the_same(kind):
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **SMALL)).eval()
    ids = torch.randint(5, 50, (3, 8))
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    with torch.no_grad():
        padded, full = model(ids, attention_mask=mask)[0], model(ids, attention_mask=torch.ones_like(ids))[0]
        with unread_masks(model):
            assert model.config._attn_implementation == UNREAD_ATTENTION
            torch.testing.assert_close(model(ids, attention_mask=mask)[0], padded)
            torch.testing.assert_close(model(ids)[0], full)
    assert model.config._attn_implementation == "sdpa"


def test_a_mask_that_is_left_out_is_not_made():
    assert unread_mask(batch_size=2, q_length=4, kv_length=4, allow_is_bidirectional_skip=True) is None


def test_a_mask_is_made_even_where_nothing_is_padded():
    ones = torch.ones(2, 4, dtype=torch.bool)
    made = unread_mask(
        batch_size=2, q_length=4, kv_length=4, attention_mask=ones, allow_is_bidirectional_skip=True,
        allow_is_causal_skip=False, mask_function=lambda batch, head, query, key: query >= 0,
    )  # fmt: skip
    assert made is not None
    assert made.shape == (2, 1, 4, 4)
    assert bool(made.all())


def test_eager_attention_stays():
    model = AutoModel.from_config(AutoConfig.for_model("bert", **SMALL), attn_implementation="eager")
    with unread_masks(model):
        assert model.config._attn_implementation == "eager"


def test_padding_is_seen_in_host_memory():
    mask = torch.ones(2, 3, dtype=torch.long)
    assert not has_padding({"attention_mask": mask})
    mask[1, 2] = 0
    assert has_padding({"attention_mask": mask})
