"""``train.compile``: the compiled encoder computes what the plain one does, hooks and copies included."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._inductor.config
from transformers import BertConfig, BertForSequenceClassification

from sparse_xp.errors import UserError
from sparse_xp.functional.dropout import cheap_dropout
from sparse_xp.functional.hidden_states import record_outputs
from sparse_xp.functional.layers import LayerGate
from sparse_xp.history import read_history
from sparse_xp.run import run
from sparse_xp.training.compiled import encoder_of, forward_replaced
from sparse_xp.training.compiler import check_compiler
from tests.runs import configure


def tiny_model() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=2
    )
    return BertForSequenceClassification(config)


def batch(rows: int, tokens: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * 100 + tokens)
    mask = torch.ones(rows, tokens, dtype=torch.long)
    mask[0, tokens // 2 :] = 0
    labels = torch.arange(rows) % 2
    ids = torch.randint(1, 50, (rows, tokens), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


SHAPES = [(4, 8), (4, 16), (2, 12), (3, 5)]


def gradients(model: torch.nn.Module, forward: object) -> list[torch.Tensor]:
    """Gradients of a step for each shape, with dropout drawn from one seed."""
    found = []
    torch.manual_seed(3)
    with cheap_dropout(model):  # type: ignore[arg-type]
        for shape in SHAPES:
            model.zero_grad()
            if forward is None:
                loss = model(**batch(*shape)).loss
            else:
                with forward_replaced(encoder_of(model), forward):  # type: ignore[arg-type]
                    loss = model(**batch(*shape)).loss
            loss.backward()
            found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    return found


def test_losses_and_dropout_are_those_of_the_plain_encoder():
    model = tiny_model().train()
    compiled = torch.compile(encoder_of(model).forward, dynamic=True, backend="aot_eager")
    for plain, same in zip(gradients(model, None), gradients(model, compiled), strict=True):
        torch.testing.assert_close(same, plain, rtol=1e-5, atol=1e-7)


def test_hooks_of_modifiers_are_called():
    model = tiny_model().train()
    outputs: dict[str, torch.Tensor] = {}
    record_outputs({"layer": encoder_of(model).encoder.layer[0]}, outputs, lambda module: module.training)
    gate = LayerGate(encoder_of(model).encoder.layer[1])
    gate.set_state(is_open=True, tracks_gradient=True)
    compiled = torch.compile(encoder_of(model).forward, dynamic=True, backend="eager")
    with forward_replaced(encoder_of(model), compiled):
        model(**batch(4, 8)).loss.backward()
    assert outputs["layer"].shape == (4, 8, 16)
    assert gate.value.grad is not None
    assert gate.value.grad.abs() > 0


def test_a_copy_has_its_own_forward_and_the_name_is_free_again():
    model = tiny_model().eval()
    plain = model(**batch(4, 8)).logits
    with forward_replaced(encoder_of(model), encoder_of(model).forward):
        pass
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    torch.testing.assert_close(other(**batch(4, 8)).logits, plain)
    assert "forward" not in vars(encoder_of(model))


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(UserError, match=r"train.compile=true needs a C\+\+ compiler"):
        check_compiler(torch.device("cpu"))


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_a_plain_one(tmp_path):
    words = ["profile=embedded", "log=none", "task=sst2", "recipe=gradual80", "teacher=none", "train.steps=8",
             "data.embedded_train_rows=128", "data.embedded_eval_rows=32", "log.every=1"]  # fmt: skip
    losses = []
    for name in ("false", "true"):
        run(configure(*words, f"train.compile={name}"), tmp_path / name)
        lines = read_history(tmp_path / name / "history.jsonl")
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
