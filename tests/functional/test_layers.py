"""Encoder layers found, weighed, bypassed and removed, in the three kinds of encoder that have another loop each."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.functional.layers import Bypass, LayerGate, bypass_layers, encoder_layers, remove_bypassed
from sparse_xp.functional.selection import select_parameters
from tests.encoders import BATCH, FIRST_STAYS, KINDS, make_encoder

torch.set_num_threads(1)


def assert_same(kind: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    """DeBERTa's products of matrices are rounded differently where the weights lie differently in memory."""
    torch.testing.assert_close(found, expected, atol=1e-6 if kind == "DebertaV2" else 0, rtol=0)


def shortened(kind: str, gone: set[int]) -> Any:
    """Return a model built with fewer layers that has the weights of ``make_encoder(kind)`` but for those ``gone``."""
    whole, where = make_encoder(kind), KINDS[kind][0]
    left = [number for number in range(4) if number not in gone]
    types = getattr(whole.config, "layer_types", None)
    more = {"layer_types": [types[number] for number in left]} if types else {}
    small = make_encoder(kind, len(left), seed=1, **more)
    state = {name: weight for name, weight in whole.state_dict().items() if not name.startswith(f"{where}.")}
    for new, old in enumerate(left):
        for name, weight in whole.get_submodule(f"{where}.{old}").state_dict().items():
            state[f"{where}.{new}.{name}"] = weight
    small.load_state_dict(state)
    return small


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gone", [{1}, {0, 3}, {1, 2, 3}])
def test_bypassed_and_removed_compute_what_a_shorter_model_does(tmp_path, kind, gone):
    model, where = make_encoder(kind), KINDS[kind][0]
    if 0 in gone and kind in FIRST_STAYS:
        with pytest.raises(UserError, match="0 cannot be removed: it is the only one without a norm"):
            bypass_layers(model, [f"{where}.{number}" for number in gone])
        return
    expected = shortened(kind, gone)(**BATCH, output_hidden_states=True)
    bypass_layers(model, [f"{where}.{number}" for number in gone])
    counts_bypassed = kind in ("MPNet", "DebertaV2")  # their loops collect hidden states themselves
    for _ in range(2):  # transformers puts its hooks for hidden states in at the first call that wants them
        assert_same(kind, model(**BATCH).logits, expected.logits)
        found = model(**BATCH, output_hidden_states=True)
        assert_same(kind, found.logits, expected.logits)
        assert len(expected.hidden_states) == 5 - len(gone)
        if not counts_bypassed:
            assert len(found.hidden_states) == len(expected.hidden_states)
            assert all(map(torch.equal, found.hidden_states, expected.hidden_states))
    left = [f"{where}.{number}" for number in range(4) if number not in gone]
    assert list(encoder_layers(model)) == left  # their names are those they had
    assert model.config.num_hidden_layers == 4

    remove_bypassed(model)
    assert list(encoder_layers(model)) == [f"{where}.{number}" for number in range(len(left))]
    assert getattr(model.config, KINDS[kind][1]) == model.config.num_hidden_layers == len(left)
    assert_same(kind, model(**BATCH).logits, expected.logits)
    assert len(model(**BATCH, output_hidden_states=True).hidden_states) == len(left) + 1
    model.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same(kind, loaded.eval()(**BATCH).logits, expected.logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bypass_has_no_parameters_and_gradients_go_through(kind):
    model, where = make_encoder(kind), KINDS[kind][0]
    bypass_layers(model, [f"{where}.1", f"{where}.3"])
    assert isinstance(model.get_submodule(f"{where}.1"), Bypass)
    assert not list(model.get_submodule(f"{where}.1").parameters())
    model.train()(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
    assert all(weight.grad is not None for weight in model.get_submodule(f"{where}.2").parameters())
    assert not any(name.startswith((f"{where}.1.", f"{where}.3.")) for name in model.state_dict())


class Twice(nn.Module):
    def forward(self, values, mask=None):
        return 2 * values


def test_a_gate_by_hand():
    """dL/dg of x + g * (2 x - x) under the loss 3 a + 5 b is 3 x + 5 y."""
    layer, values, heard = Twice(), torch.tensor([[1.0, 10.0]], requires_grad=True), []
    layer.register_forward_hook(lambda *given: heard.append(given[2]))
    gate = LayerGate(layer)
    gate.set_state(is_open=True, tracks_gradient=True)
    found = layer(values, None)
    (found @ torch.tensor([3.0, 5.0])).sum().backward()
    assert (found.tolist(), gate.value.grad.item(), values.grad.tolist()) == ([[2.0, 20.0]], 53.0, [[6.0, 10.0]])
    gate.set_state(is_open=False, tracks_gradient=True)
    assert layer(values).tolist() == [[1.0, 10.0]]
    with torch.no_grad():
        assert layer(values).tolist() == [[1.0, 10.0]]
    assert [each.tolist() for each in heard] == [[[2.0, 20.0]], [[1.0, 10.0]], [[1.0, 10.0]]]
    gate.remove()
    assert layer(values).tolist() == [[2.0, 20.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_an_open_gate_changes_no_bit_and_a_closed_one_is_a_bypass(kind):
    torch.manual_seed(0)
    model, other, where = make_encoder(kind), make_encoder(kind), KINDS[kind][0]
    labels = torch.tensor([0, 1])
    gates = [LayerGate(layer) for layer in encoder_layers(model).values()]
    for gate in gates:
        gate.set_state(is_open=True, tracks_gradient=True)
    for each in (model, other):
        each(**BATCH, labels=labels).loss.backward()
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(one.grad, two.grad) for one, two in pairs)
    assert all(gate.value.grad != 0 for gate in gates)
    model.zero_grad()
    gates[1].set_state(is_open=False, tracks_gradient=True)
    model(**BATCH, labels=labels).loss.backward()
    assert gates[1].value.grad is None
    assert all((weight.grad == 0).all() for weight in model.get_submodule(f"{where}.1").parameters())
    bypass_layers(other, [f"{where}.1"])
    assert torch.equal(model(**BATCH).logits, other(**BATCH).logits)


@pytest.mark.parametrize(
    ("gone", "tensors"), [([1, 3, 5, 7, 9, 10], 36), ([1, 2, 3, 4, 5, 7, 8, 9, 10], 18)]
)  # the 6-layer and the 3-layer recipes
def test_patterns_of_pruning_match_the_survivors_only(gone, tensors):
    model = make_encoder("Bert", 12)
    assert len(select_parameters(model, ["__ENCODER__"])) == 72
    bypass_layers(model, [f"bert.encoder.layer.{number}" for number in gone])
    six = [
        f"re:bert.encoder.layer.*.{part}.weight"
        for part in (
            "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
            "intermediate.dense", "output.dense",
        )
    ]  # fmt: skip
    for patterns in (["__ENCODER__"], six):
        names = list(select_parameters(model, patterns))
        assert len(names) == tensors
        assert {int(name.split(".")[3]) for name in names} == set(range(12)) - set(gone)
    removed = rf"re:bert\.encoder\.layer\.{gone[0]}\."
    with pytest.raises(UserError, match=f"No parameter matches '{re.escape(removed)}'"):
        select_parameters(model, [removed])


def test_a_model_without_bypasses_is_left_alone():
    model = make_encoder("Bert")
    before = dict(model.named_modules())
    remove_bypassed(model)
    assert dict(model.named_modules()) == before
    assert model.config.num_hidden_layers == 4


def test_other_lists_of_modules_are_no_encoder_layers():
    model = nn.Module()
    model.encoder = nn.Module()
    model.encoder.layer = nn.ModuleList([nn.Linear(1, 1)])
    model.heads = nn.ModuleList([nn.Linear(1, 1)])
    assert list(encoder_layers(model)) == ["encoder.layer.0"]
