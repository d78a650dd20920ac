"""Encoder layers found, bypassed and removed, in the three kinds of encoder that have another loop each."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.sparsity import select_parameters
from sparse_xp.structure import Bypass, bypass, encoder_layers, remove_bypassed, select_modules

torch.set_num_threads(1)

#: where the layers are, and what the configuration calls their number
KINDS = {
    "Bert": ("bert.encoder.layer", "num_hidden_layers"),
    "DistilBert": ("distilbert.transformer.layer", "n_layers"),
    "Roberta": ("roberta.encoder.layer", "num_hidden_layers"),
}


def make(kind: str, layers: int = 4, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": layers, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 24,
    }  # fmt: skip
    if kind == "DistilBert":
        shape = {"vocab_size": 30, "dim": 8, "n_layers": layers, "n_heads": 2, "hidden_dim": 16}
    config = getattr(transformers, f"{kind}Config")(**shape)
    return getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()


BATCH = {
    "input_ids": torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


def shortened(kind: str, gone: set[int]) -> Any:
    """A model of fewer layers, built as such, that has the weights of ``make(kind)`` without the layers ``gone``."""
    whole, small = make(kind), make(kind, 4 - len(gone), seed=1)
    where = KINDS[kind][0]
    left = [number for number in range(4) if number not in gone]
    state = {name: weight for name, weight in whole.state_dict().items() if not name.startswith(f"{where}.")}
    for new, old in enumerate(left):
        for name, weight in whole.get_submodule(f"{where}.{old}").state_dict().items():
            state[f"{where}.{new}.{name}"] = weight
    small.load_state_dict(state)
    return small


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gone", [{1}, {0, 3}, {1, 2, 3}])
def test_bypassed_and_removed_compute_what_a_shorter_model_does(tmp_path, kind, gone):
    model, where = make(kind), KINDS[kind][0]
    expected = shortened(kind, gone)(**BATCH, output_hidden_states=True)
    bypass(model, [f"{where}.{number}" for number in gone])
    for _ in range(2):  # transformers puts its hooks for hidden states in at the first call that wants them
        assert torch.equal(model(**BATCH).logits, expected.logits)
        found = model(**BATCH, output_hidden_states=True)
        assert torch.equal(found.logits, expected.logits)
        assert len(found.hidden_states) == len(expected.hidden_states) == 5 - len(gone)
        assert all(map(torch.equal, found.hidden_states, expected.hidden_states))
    left = [f"{where}.{number}" for number in range(4) if number not in gone]
    assert list(encoder_layers(model)) == left  # T34: their names are those they had
    assert model.config.num_hidden_layers == 4

    remove_bypassed(model)
    assert list(encoder_layers(model)) == [f"{where}.{number}" for number in range(len(left))]
    assert getattr(model.config, KINDS[kind][1]) == model.config.num_hidden_layers == len(left)
    assert torch.equal(model(**BATCH).logits, expected.logits)
    assert len(model(**BATCH, output_hidden_states=True).hidden_states) == len(left) + 1
    model.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(loaded.eval()(**BATCH).logits, expected.logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bypass_has_no_parameters_and_gradients_go_through(kind):
    model, where = make(kind), KINDS[kind][0]
    bypass(model, [f"{where}.0", f"{where}.2"])
    assert not list(Bypass().parameters())
    model.train()(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
    assert all(weight.grad is not None for weight in model.get_submodule(f"{where}.1").parameters())
    assert not any(name.startswith((f"{where}.0.", f"{where}.2.")) for name in model.state_dict())


@pytest.mark.parametrize(
    ("gone", "tensors"), [([1, 3, 5, 7, 9, 10], 36), ([1, 2, 3, 4, 5, 7, 8, 9, 10], 18)]
)  # the 6-layer and the 3-layer recipes
def test_patterns_of_pruning_match_the_survivors_only(gone, tensors):
    model = make("Bert", 12)
    assert len(select_parameters(model, ["__ENCODER__"])) == 72
    bypass(model, [f"bert.encoder.layer.{number}" for number in gone])
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
    model = make("Bert")
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


MODULES = {name: i for i, name in enumerate(["a.layer.0", "a.layer.1", "a.layer.10", "b.layer.0"])}


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
