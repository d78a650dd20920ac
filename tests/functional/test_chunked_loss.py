"""Losses in chunks are those of the whole, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM

from sparse_xp.functional import chunked_loss
from sparse_xp.functional.chunked_loss import LazyLogits, cross_entropy, divergence, lazy_projection, make_always_lazy
from sparse_xp.modifiers.distillation import distillation_loss


@pytest.fixture(params=[1, 40, 10_000], ids=["a row a chunk", "a few rows", "all rows"])
def _chunks(request, monkeypatch):
    monkeypatch.setattr(chunked_loss, "CHUNK_ELEMENTS", {"cpu": request.param})


def tensors(rows=7, width=5, words=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (rows, width), (words, width), (words,)
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def lazily(hidden, weight, bias):
    return LazyLogits(hidden, weight, bias, torch.float32)


def test_numbers_worked_out_by_hand():
    """Student [[2,0,0],[0,1,0]], teacher [[1,0,0],[0,0,3]], labels (0, 2), as in the distillation of whole logits."""
    student, teacher = torch.tensor([[2.0, 0, 0], [0, 1, 0]]), torch.tensor([[1.0, 0, 0], [0, 0, 3]])
    logits, taught = (LazyLogits(each, torch.eye(3), None, torch.float32) for each in (student, teacher))
    assert divergence(logits, taught, 2.0).item() == pytest.approx(0.833099, abs=1e-6)
    assert divergence(logits, teacher, 1.0).item() == pytest.approx(0.625778, abs=1e-6)
    assert cross_entropy(logits, torch.tensor([0, 2])).item() == pytest.approx(0.895495, abs=1e-6)


@pytest.mark.usefixtures("_chunks")
def test_cross_entropy_and_its_gradients():
    labels = torch.tensor([3, -100, 0, 10, -100, 3, 5])
    ours, theirs = tensors(), tensors()
    (2 * cross_entropy(lazily(*ours), labels)).backward()
    (2 * functional.cross_entropy(functional.linear(*theirs), labels)).backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_and_its_gradients(temperature):
    teacher = [each.detach() for each in tensors(width=4, seed=1)]
    ours, theirs = tensors(), tensors()
    a = distillation_loss(lazily(*ours), lazily(*teacher), temperature)
    b = distillation_loss(functional.linear(*theirs), functional.linear(*teacher), temperature)
    torch.testing.assert_close(a, b)
    (3 * a).backward()
    (3 * b).backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_chosen_tokens_are_those_of_the_mask():
    hidden, weight, bias = tensors(rows=6)
    mask = torch.tensor([[True, True, False], [False, True, False]])
    logits = lazily(hidden.view(2, 3, 5), weight, bias)
    teacher = torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(2))
    a = distillation_loss(logits, teacher, 2.0, tokens=mask)
    torch.testing.assert_close(a, distillation_loss(logits.materialize(), teacher, 2.0, tokens=mask))


def test_no_label_at_all_is_no_loss():
    tensor = tensors()
    for logits in (lazily(*tensor), functional.linear(*tensor)):
        loss = cross_entropy(logits, torch.full((7,), -100))
        loss.backward()
        assert loss.item() == 0


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForMaskedLM(config)


def test_a_model_is_lazy_in_training_alone_and_then_as_before():
    model, tokens = bert(), torch.tensor([[1, 2, 3]])
    whole = model.eval()(tokens).logits
    with lazy_projection(model):
        assert isinstance(model.eval()(tokens).logits, torch.Tensor)
        lazy = model.train()(tokens).logits
        assert isinstance(lazy, LazyLogits)
        torch.testing.assert_close(lazy.materialize(), whole)
    assert type(model.get_output_embeddings()) is torch.nn.Linear
    make_always_lazy(model.eval())
    assert isinstance(model(tokens).logits, LazyLogits)


def test_bfloat16_is_near():
    ours, theirs = tensors(words=50), tensors(words=50)
    teacher = [each.detach() for each in tensors(words=50, seed=1)]
    half = LazyLogits(*ours, torch.bfloat16)
    a, b = divergence(half, lazily(*teacher), 2.0), divergence(lazily(*theirs), lazily(*teacher), 2.0)
    assert a.item() == pytest.approx(b.item(), rel=0.02)
    a.backward()
    b.backward()
    assert torch.cosine_similarity(ours[1].grad.flatten(), theirs[1].grad.flatten(), dim=0) > 0.999
