"""Attention distributions against those that transformers gives, and their distances against numbers by hand."""

from __future__ import annotations

from math import log

import pytest
import torch

from sparse_xp.errors import UserError
from sparse_xp.functional.attention_maps import attention_layers, attention_log_probabilities, attention_loss
from sparse_xp.functional.hidden_states import record_outputs
from sparse_xp.functional.layers import bypass_layers
from tests.encoders import BATCH, make_encoder


@pytest.mark.parametrize("kind", ["Bert", "DistilBert", "Roberta", "Electra", "XLMRoberta"])
def test_they_are_those_of_the_model(kind):
    model = make_encoder(kind, layers=3)
    model.set_attn_implementation("eager")
    layers = attention_layers(model, "the student")
    assert [(layer.number, layer.heads, layer.head_size) for layer in layers] == [(0, 2, 4), (1, 2, 4), (2, 2, 4)]
    outputs: dict[str, torch.Tensor] = {}
    record_outputs({f"q{x.number}": x.query for x in layers}, outputs, lambda module: True)
    record_outputs({f"k{x.number}": x.key for x in layers}, outputs, lambda module: True)
    with torch.no_grad():
        expected = model(**BATCH, output_attentions=True).attentions
    mask = BATCH["attention_mask"].bool()
    for number, theirs in enumerate(expected):
        ours = attention_log_probabilities(outputs[f"q{number}"], outputs[f"k{number}"], 4, mask).exp()
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_bypassed_layers_have_none():
    model = make_encoder("Bert", layers=3)
    bypass_layers(model, ["bert.encoder.layer.1"])
    assert [layer.number for layer in attention_layers(model, "the student")] == [0, 2]


@pytest.mark.parametrize("kind", ["MPNet", "DebertaV2", "ModernBert", "NomicBert", "RoFormer"])
def test_other_kinds_of_attention_are_refused(kind):
    with pytest.raises(UserError, match=rf"attention of the teacher, a {kind}ForSequenceClassification, is of another"):
        attention_layers(make_encoder(kind, layers=1), "the teacher")


# One row, one head, two tokens. Teacher (3/4, 1/4) against student (1/2, 1/2) for the first, equal for the second.
TEACHER = torch.tensor([[[[0.75, 0.25], [0.5, 0.5]]]]).log()
STUDENT = torch.full((1, 1, 2, 2), 0.5).log()
BOTH = torch.tensor([[True, True]])


@pytest.mark.parametrize(
    ("kind", "expected"), [("kl", (0.75 * log(1.5) + 0.25 * log(0.5)) / 2), ("mse", (1 / 16 + 1 / 16) / 2)]
)
def test_distances_by_hand(kind, expected):
    assert attention_loss(STUDENT, TEACHER, BOTH, kind).item() == pytest.approx(expected, rel=1e-5)


def test_the_mean_over_heads_has_no_heads():
    """Two heads of the teacher, (3/4, 1/4) and (1/4, 3/4), are (1/2, 1/2) together."""
    teacher = torch.cat([TEACHER, TEACHER.flip(-1)], 1)
    assert attention_loss(STUDENT, teacher, BOTH, average=True).item() == pytest.approx(0.0, abs=1e-7)
    assert attention_loss(STUDENT.expand(1, 2, 2, 2), teacher, BOTH).item() == pytest.approx(0.065406, rel=1e-4)


@pytest.mark.parametrize("kind", ["kl", "mse"])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("garbage", [0.0, 1e4])
def test_padding_changes_neither_distance_nor_gradient(kind, average, garbage):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 8), torch.randn(2, 2, 3, 8)  # query and key, rows, tokens, two heads

    def distance(student, teacher, mask):
        maps = (attention_log_probabilities(*values, 4, mask) for values in (student, teacher))
        return attention_loss(*maps, mask, kind, average)

    expected = distance(student, teacher, torch.ones(2, 3, dtype=torch.bool))
    padded, mask = torch.full((2, 2, 5, 8), garbage), torch.arange(5).expand(2, 5) < 3
    padded[:, :, :3] = student
    padded.requires_grad_()
    found = distance(padded, torch.nn.functional.pad(teacher, (0, 0, 0, 2), value=-garbage), mask)
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert padded.grad[:, :, 3:].eq(0).all()
    assert padded.grad[:, :, :3].ne(0).any()
