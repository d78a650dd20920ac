"""Rows without labels: which rows a step has, and what a step of both kinds minimizes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from sparse_xp.modifiers import Distillation
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.settings import Train
from sparse_xp.tasks import TextClassification
from sparse_xp.training.loop import planned_steps, steps_of_epoch, train_step
from sparse_xp.training.state import TrainingWrapper
from sparse_xp.training.steps import PreparedStep
from sparse_xp.training.unlabeled import unlabeled_batches
from tests.tiny import make_run

LENGTHS = [3 + i * 7 % 23 for i in range(37)]


def flat(batches):
    return [row for batch in batches for row in batch]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("size", [1, 4, 10, 37, 50])
def test_every_row_comes_before_any_comes_again(size, grouped):
    batches = unlabeled_batches(LENGTHS, size, 42, grouped, 0, 37)  # a multiple of all rows
    assert {len(batch) for batch in batches} == {size}
    rows = flat(batches)
    passes = [rows[i : i + 37] for i in range(0, len(rows), 37)]
    assert all(sorted(each) == list(range(37)) for each in passes)
    if len(passes) > 1:
        assert passes[0] != passes[1]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("size", [4, 50])
def test_a_batch_depends_on_seed_and_number_alone(size, grouped):
    straight = unlabeled_batches(LENGTHS, size, 42, grouped, 0, 30)
    assert [unlabeled_batches(LENGTHS, size, 42, grouped, i, 1)[0] for i in range(30)] == straight
    assert unlabeled_batches(LENGTHS, size, 42, grouped, 11, 19) == straight[11:]
    assert unlabeled_batches(LENGTHS, size, 43, grouped, 0, 30) != straight


def test_rows_of_like_length_go_together():
    lengths = [1 + i % 40 for i in range(4000)]

    def padding(grouped):
        batches = unlabeled_batches(lengths, 16, 42, grouped, 0, 500)
        return sum(max(lengths[row] for row in batch) * 16 - sum(lengths[row] for row in batch) for batch in batches)

    assert padding(True) < padding(False) / 5


class Linear(nn.Module):
    """A regression with one weight, 1, on the first token of a row: its logit is that token."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.weight * input_ids[:, :1].float()
        loss = None if labels is None else (logits[:, 0] - labels).square().mean()
        return SequenceClassifierOutput(loss=loss, logits=logits)


class Zero:
    """A teacher that answers 0, and remembers for which rows."""

    model = None

    def __init__(self):
        self.asked = []

    def __call__(self, rows, batch):
        self.asked += rows
        return {"logits": torch.zeros(len(rows), 1)}


def mixed_run(steps_per_epoch=5, **fields):
    """A run of 7 epochs of 10 rows with labels, and 7 without, in batches of 2 and 2."""
    accelerator, model = Accelerator(cpu=True), Linear()
    task = TextClassification(name="numbers", dataset=None, problem="regression")
    distillation = fields.pop("distillation", Distillation(hardness=0.5))
    run = make_run(
        steps_per_epoch, 7 * steps_per_epoch, accelerator=accelerator, model=model, task=task, seed=42, teacher=Zero(),
        train=Train(batch_size=4, unlabeled_share=0.5, max_grad_norm=None, group_by_length=False),
        train_features=range(10), unlabeled_features=range(7), lengths=[5] * 10, all_lengths=[5] * 17,
        device=torch.device("cpu"), skipped=None, **fields,
    )  # fmt: skip
    run.modifier_list = ModifierList({"distillation": distillation}, run.clock)
    run.optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run.prepared_model = TrainingWrapper(model, task)
    return run


def batch_of(values, labels=None):
    inputs = torch.tensor([[value] for value in values])
    batch = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
    return batch if labels is None else {**batch, "labels": torch.tensor(labels)}


def test_the_task_averages_rows_with_labels_and_the_teacher_all():
    """Worked out by hand: (1 + 4 + 9) / 3 for the task, (1 + 4 + 9 + 16 + 25) / 5 for the teacher, half of each."""
    run = mixed_run()
    rows = [[10, 16], [0, 1], [2]]
    step = PreparedStep(rows, [batch_of([4, 5]), batch_of([1, 2], [0.0, 0.0]), batch_of([3], [0.0])])
    loss, norm = train_step(run, step)
    logs = run.modifier_list.logs(run)
    assert logs["loss_task"] == pytest.approx(14 / 3)
    assert logs["loss_distillation"] == pytest.approx(11)
    assert loss.item() == pytest.approx((14 / 3 + 11) / 2)
    assert norm.item() == pytest.approx(2 * (14 / 3 + 11) / 2)  # of a sum of squares of w * x, at w = 1
    assert run.teacher.asked == [10, 16, 0, 1, 2]


def test_a_step_has_rows_of_both_kinds():
    run = mixed_run()
    epochs = [steps_of_epoch(run, epoch) for epoch in range(7)]
    for steps in epochs:
        assert [[len(batch) for batch in step] for step in steps] == [[2, 2]] * 5
        assert sorted(flat(step[1] for step in steps)) == list(range(10))
    others = flat(step[0] for steps in epochs for step in steps)
    assert all(sorted(others[i : i + 7]) == list(range(10, 17)) for i in range(0, 70, 7))


def test_a_run_that_continues_has_the_rows_of_one_that_does_not():
    run = mixed_run()
    straight = list(planned_steps(run))
    run.progress.step = 12
    assert list(planned_steps(run)) == straight[12:]


def test_processes_share_the_rows():
    processes = []
    for rank in (0, 1):
        run = mixed_run(steps_per_epoch=3)
        run.accelerator = SimpleNamespace(num_processes=2, process_index=rank)
        processes.append(flat(step[0] for epoch in range(7) for step in steps_of_epoch(run, epoch)))
    together = flat(zip(*(iter(each) for each in processes), strict=True))
    assert len(together) == 7 * 6 * 2  # of 5 batches with labels one is there twice
    counts = {row: together.count(row) for row in range(10, 17)}
    assert set(counts.values()) == {12}


def test_accumulation_takes_as_many_batches_of_both():
    run = mixed_run()
    run.train.gradient_accumulation_steps = 3
    steps = steps_of_epoch(run, 0)
    assert [[batch[0] >= 10 for batch in step] for step in steps] == [
        [True] * 3 + [False] * 3,
        [True] * 2 + [False] * 2,
    ]


def test_a_limit_on_tokens_keeps_the_kinds_apart():
    run = mixed_run()
    run.train.gradient_accumulation_steps, run.train.tokens = 5, 20  # batches of at most 4 rows
    [step] = steps_of_epoch(run, 0)
    assert [len(batch) for batch in step] == [4, 4, 2, 4, 4, 2]
    assert [{row >= 10 for row in batch} for batch in step] == [{True}] * 3 + [{False}] * 3


def test_steps_without_distillation_have_labels_alone():
    run = mixed_run(distillation=Distillation(start="2 steps", end="7 steps"))
    steps = [len(step) for epoch in range(2) for step in steps_of_epoch(run, epoch)]
    assert steps == [1, 1, 2, 2, 2, 2, 2, 2, 1, 1]
