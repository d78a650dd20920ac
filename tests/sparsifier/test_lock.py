"""A sparse model keeps its zeros in any loop, with one line; the end is checked."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.modifiers import MagnitudePruning
from sparse_xp.sparsifier.lock import lock
from sparse_xp.sparsifier.sparsifier import Sparsifier
from tests.tiny import make_bert

OPTIMIZERS = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.9),
}


def sparse_bert(sparsity: float = 0.75) -> nn.Module:
    """A BERT whose encoder has so many zeros, in the places of the smallest weights."""
    model = make_bert()
    for name, weight in model.named_parameters():
        if "encoder" in name and weight.ndim == 2:
            smallest = weight.detach().abs().flatten().argsort()[: round(weight.numel() * sparsity)]
            weight.data.view(-1)[smallest] = 0
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    """A loop that knows nothing of the lock."""
    for step in range(steps):
        rows = torch.randint(5, 20, (4, 6), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(input_ids=rows, labels=rows[:, 0] % 2).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def zeros(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach() == 0 for name, weight in model.named_parameters() if "encoder" in name}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_zeros_stay_and_the_rest_trains(make):
    model = sparse_bert()
    before = copy.deepcopy(model)
    scheduler = lock(model)
    assert scheduler.sparsity == pytest.approx(0.75 * 512 / (512 + 64))  # with the pooler, which has none
    train(model, make(model.parameters()))
    scheduler.remove_pruning()
    pairs = zip(zeros(before).values(), zeros(model).values(), strict=True)
    assert all(bool((now == was).all() if was.ndim == 2 else True) for was, now in pairs)
    assert sum(int(mask.sum()) for mask in zeros(model).values() if mask.ndim == 2) == 0.75 * 512
    assert not torch.equal(model.classifier.weight, before.classifier.weight)
    assert all(
        bool((weight != was)[weight != 0].any())
        for (name, weight), was in zip(model.named_parameters(), before.parameters(), strict=True)
        if "encoder" in name and weight.ndim == 2
    )


def test_without_the_lock_they_are_gone():
    model = sparse_bert()
    train(model, OPTIMIZERS["AdamW"](model.parameters()))
    assert sum(int(mask.sum()) for mask in zeros(model).values() if mask.ndim == 2) < 40


def test_after_remove_pruning_the_weights_train_again():
    model = sparse_bert()
    lock(model).remove_pruning()
    train(model, OPTIMIZERS["SGD"](model.parameters()))
    assert sum(int(mask.sum()) for mask in zeros(model).values() if mask.ndim == 2) < 40
    lock(model, min_sparsity=0.0)  # it may be locked again


def test_weights_that_are_unfrozen_later_keep_their_zeros():
    model = sparse_bert()
    model.bert.requires_grad_(False)
    scheduler = lock(model)
    assert not any(weight.requires_grad for weight in model.bert.parameters())
    model.bert.requires_grad_(True)
    train(model, OPTIMIZERS["AdamW"](model.parameters()))
    scheduler.remove_pruning()


def test_a_dense_model_is_refused():
    with pytest.raises(UserError, match=r"has 0.0% zeros in __BODY__, expected at least 5%"):
        lock(make_bert())
    assert lock(make_bert(), min_sparsity=0).sparsity == 0


def test_zeros_that_are_lost_are_reported():
    model = sparse_bert()
    scheduler = lock(model)
    model.load_state_dict(make_bert(1).state_dict())
    with pytest.raises(
        UserError, match=r"pruned weights of bert\S+ are no longer zero: something has written into them"
    ):
        scheduler.remove_pruning()


def test_an_optimizer_that_knew_the_weights_before_is_caught_at_the_end():
    model = make_bert()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer, 1)
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[:, ::2] = 0
    scheduler = lock(model, params=["bert.encoder.layer.0.output.dense.weight"])
    train(model, optimizer, 1)
    with pytest.raises(UserError, match="make the optimizer after that"):
        scheduler.check()


def test_what_is_locked():
    model = sparse_bert()
    model.classifier.weight.data[0] = 0
    scheduler = lock(model, params=["__ENCODER__", "classifier.weight"], exclude=["re:.*intermediate.*"])
    assert sorted(name.rpartition(".layer.0.")[2] for name in scheduler.masks) == [
        "attention.output.dense.weight", "attention.self.key.weight", "attention.self.query.weight",
        "attention.self.value.weight", "classifier.weight", "output.dense.weight",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"params": ["encoder.weight"]}, "No parameter matches 'encoder.weight'"),
        ({"params": []}, "params is empty"),
        ({"min_sparsity": 80}, r"min_sparsity=80: expected a fraction in \[0, 1\]"),
        ({"params": "__ENCODER__"}, None),  # one needs no list
    ],
)
def test_options_that_make_no_sense(options, message):
    if message is None:
        assert lock(sparse_bert(), **options).sparsity == 0.75
        return
    with pytest.raises(UserError, match=message):
        lock(sparse_bert(), **options)


def test_a_locked_model_is_not_wrapped_again():
    model = sparse_bert()
    scheduler = lock(model)
    with pytest.raises(UserError, match="has a Sparsifier or a lock already"):
        lock(model)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(UserError, match="has a Sparsifier or a lock already"):
        Sparsifier(MagnitudePruning(final_sparsity=0.9), model, optimizer, steps_per_epoch=4, epochs=1)
    scheduler.remove_pruning()
    Sparsifier(MagnitudePruning(final_sparsity=0.9), model, optimizer, steps_per_epoch=4, epochs=1)


def test_no_module_no_lock():
    with pytest.raises(UserError, match="model: expected a module of PyTorch, not SimpleNamespace"):
        lock(SimpleNamespace())
