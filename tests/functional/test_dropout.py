"""The cheap dropout: how often, how much, its gradient, and that a model is afterwards what it was."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from sparse_xp.functional import dropout
from sparse_xp.functional.dropout import CheapDropout, cheap_dropout, drop, keep_mask
from tests.tiny import make_bert


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_as_many_are_dropped_as_asked(p):
    torch.manual_seed(0)
    mask, scale = keep_mask(torch.Size([1000, 1000]), p)
    share = 1 - mask.float().mean().item()
    assert share == pytest.approx(p, abs=4 * (p * (1 - p) / 1e6) ** 0.5 + 2**-17)
    assert scale == pytest.approx(1 / (1 - p), rel=1e-4)
    # each of the four elements that share a draw is dropped as often as the others
    quarters = 1 - mask.flatten().view(-1, 4).float().mean(0)
    assert quarters.tolist() == pytest.approx([p] * 4, abs=5 * (p * (1 - p) / 2.5e5) ** 0.5)
    # and they do not depend on each other
    both = (mask.flatten().view(-1, 4)[:, :2] == 0).all(-1).float().mean().item()
    assert both == pytest.approx(p * p, abs=5 * (p * p / 2.5e5) ** 0.5)


@pytest.mark.parametrize("elements", [1, 3, 4, 7])
def test_any_number_of_elements(elements):
    assert keep_mask(torch.Size([elements]), 0.5)[0].shape == (elements,)


def test_the_gradient_goes_where_the_value_went():
    values = torch.full((4000,), 2.0, requires_grad=True)
    found = drop(values, 0.25)
    found.sum().backward()
    kept = found != 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.05)
    torch.testing.assert_close(found[kept], torch.full_like(found[kept], 2 / 0.75))
    torch.testing.assert_close(values.grad, found.detach() / 2)


def test_the_same_seed_drops_the_same():
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(drop(torch.ones(100), 0.5))
    assert torch.equal(*found)


def batch():
    ids = torch.randint(5, 10, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture
def bert():
    model = make_bert()
    model.set_attn_implementation("sdpa")
    return model


def test_attention_is_the_usual_one_up_to_what_is_dropped(bert, monkeypatch):
    """With a mask that keeps everything and a scale of 1, training mode computes what evaluation does."""
    for module in bert.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    bert.config.attention_probs_dropout_prob = 0.1
    for layer in bert.bert.encoder.layer:
        layer.attention.self.dropout.p = 0.1
    expected = bert.eval()(**batch()).logits
    calls = []

    def everything(shape, p):
        calls.append(len(shape))
        return torch.ones(shape, dtype=torch.bool), 1.0

    monkeypatch.setattr(dropout, "keep_mask", everything)
    with cheap_dropout(bert):
        found = bert.train()(**batch()).logits
        torch.testing.assert_close(found, expected)
        assert 4 in calls  # attention weights: rows, heads, tokens, tokens
        assert 3 in calls
        calls.clear()
        torch.testing.assert_close(bert.eval()(**batch()).logits, expected)
        assert not calls


def test_the_model_is_afterwards_what_it_was(bert, tmp_path):
    def stop():
        assert any(type(module) is CheapDropout for module in bert.modules())
        bert.save_pretrained(tmp_path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), cheap_dropout(bert):
        stop()
    assert not any(type(module) is CheapDropout for module in bert.modules())
    assert bert.config._attn_implementation == "sdpa"
    assert dropout.ATTENTION_NAME not in (tmp_path / "config.json").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["hidden_size"] == bert.config.hidden_size


def test_a_model_with_eager_attention_keeps_it(bert):
    bert.set_attn_implementation("eager")
    with cheap_dropout(bert):
        assert bert.config._attn_implementation == "eager"
