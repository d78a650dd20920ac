"""Steps that are made ahead are the same steps; what goes wrong in making them comes out where it belongs."""

from __future__ import annotations

import threading
import time
from functools import partial
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from sparse_xp.data.batches import pad_to_bucket
from sparse_xp.errors import UserError
from sparse_xp.functional.padding_mask import has_padding
from sparse_xp.run import run
from sparse_xp.settings import Train
from sparse_xp.tasks import Pretraining, QuestionAnswering, TextClassification, TokenClassification
from sparse_xp.training.loop import planned_steps
from sparse_xp.training.state import Progress, TrainingWrapper
from sparse_xp.training.steps import made_ahead, prepare_step, prepared_steps
from sparse_xp.training.teacher import StoredTeacher
from tests.runs import HANGS, SHORT, configure, history
from tests.tiny import make_bert, make_run, make_tokenizer


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_results_come_in_order_from_another_thread(depth):
    def make(item: int) -> tuple[int, int]:
        time.sleep(0.01 if item % 3 == 0 else 0)
        return item, threading.get_ident()

    with made_ahead(make, iter(range(20)), depth) as results:
        found = list(results)
    assert [item for item, _ in found] == list(range(20))
    assert len({thread for _, thread in found}) == 1
    assert found[0][1] != threading.get_ident()
    assert threads() == []


def test_so_many_are_made_ahead_and_no_more():
    made: list[int] = []
    taken = 0

    def items():
        nonlocal taken
        for item in range(100):
            taken += 1
            yield item

    with made_ahead(made.append, items(), 2) as results:
        next(results)
        deadline = time.monotonic() + HANGS
        while len(made) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert made == [0, 1, 2]
        assert taken == 3
    assert made == [0, 1, 2]


def test_an_error_is_raised_where_its_result_would_have_come():
    def make(item: int) -> int:
        if item == 2:
            raise ZeroDivisionError("in the thread")
        return item

    with made_ahead(make, range(5), 2) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ZeroDivisionError, match="in the thread"):
            next(results)
    assert threads() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_thread_ends_with_a_block_that_is_left_early(error):
    def leave() -> None:
        with made_ahead(lambda item: item, iter(range(10**9)), 3) as results:
            assert next(results) == 0
            raise error

    with pytest.raises(error):
        leave()
    assert threads() == []


def test_the_thread_begins_with_what_it_is_told():
    began: list[int] = []
    with made_ahead(lambda item: (item, len(began)), range(3), 2, lambda: began.append(1)) as results:
        assert list(results) == [(0, 1), (1, 1), (2, 1)]


def test_no_items_give_no_results():
    with made_ahead(str, [], 2) as results:
        assert list(results) == []


# The steps of a run

LENGTHS = [4 + 7 * row % 9 for row in range(40)]


def pretraining_run(step=0, device="cpu", **more):
    """A run over 40 rows of random tokens, masked anew in each epoch, with a stored teacher of two classes a token."""
    rng = np.random.default_rng(0)
    tokens = [[2, *rng.integers(5, 20, length - 2).tolist(), 3] for length in LENGTHS]
    masks = [[1] * length for length in LENGTHS]
    logits = rng.standard_normal((sum(LENGTHS), 2), np.float32)
    return make_run(
        5, 12, seed=7, lengths=LENGTHS, device=torch.device(device), tokenizer=make_tokenizer(),
        inputs=["input_ids", "attention_mask"], train=Train(batch_size=4, gradient_accumulation_steps=2, **more),
        task=Pretraining(name="toy", dataset=None, max_length=16), progress=Progress(step=step),
        train_features=Dataset.from_dict({"input_ids": tokens, "attention_mask": masks}),
        teacher=StoredTeacher({"logits": logits}, np.concatenate([[0], np.cumsum(LENGTHS)])),
        accelerator=SimpleNamespace(process_index=0, num_processes=1),
    )  # fmt: skip


def check_equal(one, other):
    assert one.rows == other.rows
    for ours, theirs in zip(
        [*one.batches, *one.logits.values()], [*other.batches, *other.logits.values()], strict=True
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("more", [{}, {"tokens": 40}], ids=["rows", "tokens"])
def test_steps_made_ahead_are_those_made_in_turn(more):
    with prepared_steps(one := pretraining_run(**more), planned_steps(one)) as steps:
        in_turn = list(steps)
    other = pretraining_run(**more)
    with made_ahead(partial(prepare_step, other), planned_steps(other), 3) as steps:
        ahead = []
        for step in steps:
            ahead.append(step)
            other.progress.step += 1  # what the loop does meanwhile has no say
    assert len(in_turn) == len(ahead) == 12  # two epochs and two steps
    for ours, theirs in zip(in_turn, ahead, strict=True):
        check_equal(ours, theirs)
    assert sorted(chain(*chain(*(step.rows for step in in_turn[:5])))) == list(range(40))
    # A run that continues after step 7 makes the others.
    for ours, theirs in zip(
        in_turn[7:], map(partial(prepare_step, one), planned_steps(pretraining_run(7, **more))), strict=True
    ):
        check_equal(ours, theirs)


def test_batches_and_logits_of_a_step_are_those_asked_for_one_by_one():
    this = pretraining_run(step=6)
    step = prepare_step(this, next(planned_steps(this)))
    for rows, batch in zip(step.rows, step.batches, strict=True):
        assert all(torch.equal(value, batch[name]) for name, value in this.training_batch(rows).items())
        stored = this.teacher(rows, batch)
        assert torch.equal(stored["logits"], step.logits[tuple(rows)]["logits"])
        for number, row in enumerate(rows):
            begin = sum(LENGTHS[:row])
            expected = this.teacher.arrays["logits"][begin : begin + LENGTHS[row]]
            assert np.array_equal(stored["logits"][number, : LENGTHS[row]], expected)
            assert not stored["logits"][number, LENGTHS[row] :].any()


def test_a_run_on_a_gpu_has_few_widths():
    """The batches themselves are made in host memory, with a GPU or without."""
    on_cpu, on_gpu = pretraining_run(), pretraining_run(device="cuda")
    for rows in ([0], [2, 5, 30]):
        batch, wider = on_cpu.host_batch(rows, 1), on_gpu.host_batch(rows, 1)
        width = batch["input_ids"].shape[1]
        assert wider["input_ids"].shape[1] == (8 if width <= 8 else 16)
        for name, fill in (("input_ids", 0), ("attention_mask", 0), ("labels", -100)):
            assert torch.equal(wider[name][:, :width], batch[name])  # the same tokens are masked
            assert (wider[name][:, width:] == fill).all()


TAGS = {"labels": torch.tensor([[-100, 2, 0], [-100, 1, -100]])}
SPANS = {"start_positions": torch.tensor([1, 0]), "end_positions": torch.tensor([2, 1])}


KINDS = pytest.mark.parametrize(
    ("kind", "task", "targets"),
    [
        (BertForSequenceClassification, TextClassification(name="x", max_length=16), {"labels": torch.tensor([1, 0])}),
        (BertForTokenClassification, TokenClassification(name="x", max_length=16, classes=["O", "B-a", "I-a"]), TAGS),
        (BertForQuestionAnswering, QuestionAnswering(name="x", max_length=16, doc_stride=4), SPANS),
        (BertForMaskedLM, Pretraining(name="x", max_length=16), TAGS),
    ],
)


def model_of(kind):
    torch.manual_seed(0)
    config = make_bert().config
    config.num_labels = 2 if kind is not BertForTokenClassification else 3
    return kind(config).eval()


@KINDS
def test_a_batch_without_padding_has_the_same_loss_without_its_mask(kind, task, targets):
    ids = torch.tensor([[2, 7, 3], [2, 5, 3]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **targets}
    assert not has_padding(batch)
    wrapper, given = TrainingWrapper(model_of(kind), task), []
    wrapper.model.register_forward_pre_hook(lambda module, _, named: given.append(sorted(named)), with_kwargs=True)
    losses = [wrapper(padded=padded, **batch).loss for padded in (True, False)]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-7)
    assert ["attention_mask" in names for names in given] == [True, False]


@KINDS
def test_a_wider_batch_has_the_same_loss(kind, task, targets):
    model = model_of(kind)
    batch = {
        "input_ids": torch.tensor([[2, 7, 3], [2, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        **targets,
    }
    padded = pad_to_bucket(batch, {"labels": -100}, task.max_length)
    assert padded["input_ids"].shape == (2, 8)
    losses = [task.forward(model, each).loss for each in (batch, padded)]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-7)
    assert task.loss_counts(batch) == task.loss_counts(padded)


def test_a_run_that_has_stopped_has_no_steps_left():
    this = pretraining_run()
    this.progress.stopped = True
    assert list(planned_steps(this)) == []


# train.tokens


@pytest.fixture
def words(tmp_path):
    return (
        *SHORT, "recipe=dense", "model.dropout=0", "train.epochs=1", "data.embedded_train_rows=40", "log.every=1",
        "data.embedded_eval_rows=12", "train.precision=fp32", "train.batch_size=4",
        "train.gradient_accumulation_steps=4", f"data.cache={tmp_path}/cache",
    )  # fmt: skip


@pytest.mark.parametrize("task", ["squad", "conll2003", "wikipedia_mlm"])
def test_a_number_of_tokens_changes_no_loss(tmp_path, words, task, trained_only):
    found = []
    for name, more in (("rows", ()), ("tokens", ("train.tokens=1000",))):
        run(configure(*words, f"task={task}", *more), tmp_path / name)
        lines = [line for line in history(tmp_path / name) if "loss" in line]
        found.append([[line["step"], line["loss"], line["grad_norm"]] for line in lines])
    assert len(found[0]) == 3
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_a_row_longer_than_a_micro_batch_is_refused(tmp_path, words):
    with pytest.raises(
        UserError, match=r"train\.tokens=5: the longest training row has \d+ tokens, .*task\.max_length=8"
    ):
        run(configure(*words, "task=sst2", "train.tokens=5"), tmp_path / "run")


def test_less_than_a_token_is_refused():
    with pytest.raises(ValueError, match=r"train\.tokens=0: expected at least 1, or null"):
        Train(tokens=0)
