"""The distillation loss against numbers worked out by hand, and when and how it enters the loss."""

from __future__ import annotations

from math import log
from types import SimpleNamespace

import pytest
import torch

from sparse_xp.errors import UserError
from sparse_xp.modifiers import Distillation
from sparse_xp.modifiers.distillation import distillation_loss
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.training.state import Progress
from tests.tiny import loss_of, make_run

# Teacher (3/4, 1/4) against student (1/2, 1/2): 0.75 ln 1.5 + 0.25 ln 0.5.
EVEN, UNEVEN, DIVERGENCE = [[0.0, 0.0]], [[log(3), 0.0]], 0.130812036


def test_two_classes_by_hand():
    loss = distillation_loss(torch.tensor(EVEN), torch.tensor(UNEVEN), 1.0)
    assert loss.item() == pytest.approx(DIVERGENCE, abs=1e-7)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.7083187), (2.0, 0.7971553), (5.0, 0.8272763)])
def test_recorded_values(temperature, expected):  # recorded from SparseML 1.x
    student = torch.tensor([[1.0, 2, 3], [0, 0, 0]])
    teacher = torch.tensor([[3.0, 2, 1], [1, 0, -1]])
    assert distillation_loss(student, teacher, temperature).item() == pytest.approx(expected, abs=1e-6)
    # The mean is over all leading positions: the same rows once more per token change nothing.
    wide_student, wide_teacher = (logits[:, None].expand(2, 4, 3) for logits in (student, teacher))
    assert distillation_loss(wide_student, wide_teacher, temperature).item() == pytest.approx(expected, abs=1e-6)


def test_equal_logits_cost_nothing_and_do_not_pull():
    student = torch.tensor([[1.0, -2.0, 0.5]], requires_grad=True)
    loss = distillation_loss(student, student.detach() + 7.0, 2.0)  # softmax does not see the constant
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert student.grad.abs().max().item() < 1e-6


@pytest.mark.parametrize("garbage", [0.0, 3.0, 1e4, -1e4])
def test_padding_changes_neither_loss_nor_gradient(garbage):
    torch.manual_seed(0)
    lengths = (5, 3)
    rows = [(torch.randn(n), torch.randn(n)) for n in lengths]
    expected, gradients = [], []
    for student, teacher in rows:
        student = student.clone().requires_grad_()
        loss = distillation_loss(student[None], teacher[None], 2.0)
        loss.backward()
        expected.append(loss.item())
        gradients.append(student.grad / len(rows))

    padded_student = torch.full((2, 7), garbage)
    padded_teacher = torch.full((2, 7), -garbage)
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    for i, (student, teacher) in enumerate(rows):
        padded_student[i, : lengths[i]], padded_teacher[i, : lengths[i]] = student, teacher
    padded_student.requires_grad_()
    loss = distillation_loss(padded_student, padded_teacher, 2.0, mask)
    loss.backward()

    assert loss.item() == pytest.approx(sum(expected) / 2, abs=1e-6)
    torch.testing.assert_close(padded_student.grad[mask], torch.cat(gradients), atol=1e-7, rtol=1e-5)
    assert padded_student.grad[~mask].eq(0).all()


def test_half_precision_logits_are_compared_in_float32():
    student = torch.tensor([[1.0, 0.0]], dtype=torch.bfloat16)
    loss = distillation_loss(student, student.flip(-1), 1.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.46211716, abs=1e-6)  # (e - 1) / (e + 1)


class Teacher:
    """Gives set logits and keeps what it was called with."""

    def __init__(self, **logits: list):
        self.logits, self.calls = logits, []

    def __call__(self, rows, batch):
        self.calls.append((rows, batch))
        return {name: torch.tensor(value) for name, value in self.logits.items()}


def make_task(**changes):
    nothing = {
        "class_mask": lambda batch: None,
        "token_mask": lambda batch: None,
        "problem_type": "single_label_classification",
        "loss_reduction": "mean",
    }
    fields = {"name": "toy", "outputs": ("logits",), "targets": ("labels",), **nothing}
    return SimpleNamespace(**fields | changes)


BATCH = {"input_ids": torch.tensor([[2, 3]]), "labels": torch.tensor([1])}


@pytest.mark.parametrize(
    ("hardness", "expected"), [(0.0, 2.0), (0.25, 1.532703009), (1.0, DIVERGENCE)]
)  # 0.75 * 2 + 0.25 * 0.130812036
def test_hardness_mixes_the_two_losses(hardness, expected):
    teacher = Teacher(logits=UNEVEN)
    run = make_run(1, 1, task=make_task(), teacher=teacher)
    modifier = Distillation(hardness=hardness, temperature=1.0)
    modifier.attach(run)
    loss = loss_of(modifier, run, [0], BATCH, {"logits": torch.tensor(EVEN)}, torch.tensor(2.0))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert modifier.logs(run) == pytest.approx({"loss_task": 2.0, "loss_distillation": DIVERGENCE}, abs=1e-6)


def test_the_teacher_is_asked_about_the_rows_of_the_batch():
    teacher = Teacher(logits=UNEVEN)
    run = make_run(1, 1, task=make_task(), teacher=teacher)
    loss_of(Distillation(), run, [7], BATCH, {"logits": torch.tensor(EVEN)}, torch.tensor(2.0))
    assert teacher.calls == [([7], BATCH)]


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [(None, DIVERGENCE / 2), (["start_logits"], DIVERGENCE), (["end_logits"], 0.0)],
)
def test_the_mean_over_the_outputs(outputs, expected):  # the end logits agree already
    task = make_task(outputs=("start_logits", "end_logits"))
    run = make_run(1, 1, task=task, teacher=Teacher(start_logits=UNEVEN, end_logits=EVEN))
    modifier = Distillation(hardness=1.0, temperature=1.0, outputs=outputs)
    modifier.attach(run)
    student = {"start_logits": torch.tensor(EVEN), "end_logits": torch.tensor(EVEN)}
    assert loss_of(modifier, run, [0], BATCH, student, torch.tensor(2.0)).item() == pytest.approx(expected, abs=1e-6)


def test_the_mask_of_the_task_is_used():
    mask = torch.tensor([[True, True, False]])
    task = make_task(class_mask=lambda batch: mask)
    run = make_run(1, 1, task=task, teacher=Teacher(logits=[[log(3), 0.0, 50.0]]))
    modifier = Distillation(hardness=1.0, temperature=1.0)
    loss = loss_of(modifier, run, [0], BATCH, {"logits": torch.tensor([[0.0, 0.0, 90.0]])}, torch.tensor(2.0))
    assert loss.item() == pytest.approx(DIVERGENCE, abs=1e-6)


def test_outside_its_window_the_loss_is_untouched_and_the_teacher_idle():
    teacher = Teacher(logits=UNEVEN)
    run = make_run(2, 6, task=make_task(), teacher=teacher)
    modifier = Distillation(start="2 steps", end="4 steps")
    active = []
    for step in range(6):
        run.progress.step = step
        task_loss = torch.tensor(2.0)
        loss = loss_of(modifier, run, [0], BATCH, {"logits": torch.tensor(EVEN)}, task_loss)
        if loss is task_loss:
            assert modifier.logs(run) == {}
        else:
            active.append(run.progress.step)
    assert active == [2, 3, 4]
    assert len(teacher.calls) == 3


def test_an_unknown_output_is_refused_with_the_known_ones():
    run = make_run(1, 1, task=make_task(name="squad", outputs=("start_logits", "end_logits")), teacher=None)
    with pytest.raises(UserError, match=r"outputs names strat_logits, but task squad has start_logits, end_logits"):
        Distillation(outputs=["strat_logits", "end_logits"]).attach(run)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hardness": -0.1}, r"Distillation\.hardness=-0\.1: expected a weight in \[0, 1\]"),
        ({"hardness": 1.5}, r"Distillation\.hardness=1\.5"),
        ({"hardness": float("nan")}, r"Distillation\.hardness=nan"),
        ({"temperature": 0.0}, r"Distillation\.temperature=0\.0: expected a number above 0"),
        ({"temperature": -2.0}, r"Distillation\.temperature=-2\.0"),
        ({"temperature": float("nan")}, r"Distillation\.temperature=nan"),
        ({"start": "later"}, r"Distillation\.start='later' is not a time"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        Distillation(**fields)


def test_labels_are_compared_one_by_one():
    student, teacher = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]])
    # p = sigmoid(2) = 0.8808, q = 0.5: p ln(p/q) + (1-p) ln((1-p)/(1-q)); the second label agrees
    p = 0.8807970779778823
    first = p * log(p / 0.5) + (1 - p) * log((1 - p) / 0.5)
    found = distillation_loss(student, teacher, 1.0, problem_type="multi_label_classification")
    assert found.item() == pytest.approx(first / 2, rel=1e-5)
    hot = distillation_loss(student * 3, teacher * 3, 3.0, problem_type="multi_label_classification")
    assert hot.item() == pytest.approx(9 * first / 2, rel=1e-5)


def test_values_are_compared_by_their_square():
    found = distillation_loss(
        torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0], [2.0]]), 5.0, problem_type="regression"
    )
    assert found.item() == pytest.approx((1 + 4) / 2)


def test_tokens_that_do_not_count_have_no_part():
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    tokens = torch.tensor([[True, True, False], [True, False, False]])
    rows = [distillation_loss(student[i, j], teacher[i, j], 2.0).item() for i, j in [(0, 0), (0, 1), (1, 0)]]
    found = distillation_loss(student, teacher, 2.0, tokens=tokens)
    assert found.item() == pytest.approx(sum(rows) / 3, rel=1e-5)


def test_t41_two_windows_that_meet_are_chained_in_the_step_between_them():
    """h = 0.6 on epochs 0 to 2 and 0.4 from 2 on: at epoch 2 the second mixes what the first has mixed."""
    run = make_run(2, 8, task=make_task(), teacher=Teacher(logits=UNEVEN))
    windows = {
        "first": Distillation(hardness=0.6, temperature=1.0, end=2.0),
        "second": Distillation(hardness=0.4, temperature=1.0, start=2.0),
    }
    recipe = ModifierList(windows, run.clock)
    found = []
    for run.progress.step in (3, 4, 5):
        found.append(loss_of(recipe, run, [0], BATCH, {"logits": torch.tensor(EVEN)}, torch.tensor(1.0)).item())
    first = 0.4 + 0.6 * DIVERGENCE
    assert found == pytest.approx([first, 0.6 * first + 0.4 * DIVERGENCE, 0.6 + 0.4 * DIVERGENCE], abs=1e-6)


# Tokens of which there are many


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [[True, True, True, False]]),
        ({"tokens": "targets"}, [[False, True, False, False]]),
    ],
)
def test_which_tokens_are_compared(fields, expected):
    batch = {"labels": torch.tensor([[-100, 7, -100, -100]])}
    mask = torch.tensor([[True, True, True, False]])
    chosen = Distillation(**fields).select_tokens(run_over(mask), [0], batch)
    assert chosen is not None
    assert chosen.tolist() == expected


def run_over(mask, step=0):
    """A run of a task whose tokens are those of ``mask``."""
    return make_run(1, 1, seed=42, task=make_task(token_mask=lambda batch: mask), progress=Progress(step=step))


def test_a_share_of_the_tokens_is_drawn_anew_and_padding_never():
    mask = torch.ones(4, 1000, dtype=torch.bool)
    mask[:, 900:] = False
    modifier = Distillation(token_share=0.25)
    one, other = (modifier.select_tokens(run_over(mask, step), [0, 1, 2, 3], {}) for step in (0, 1))
    assert one is not None
    assert one.float().mean().item() == pytest.approx(0.225, abs=0.02)
    assert not one[:, 900:].any()
    assert not torch.equal(one, other)
    assert len({str(row.tolist()) for row in one}) == 4


def test_the_tokens_drawn_of_a_row_depend_on_nothing_beside_it():
    modifier = Distillation(token_share=0.5)
    together = modifier.select_tokens(run_over(torch.ones(3, 40, dtype=torch.bool)), [5, 6, 7], {})
    alone = modifier.select_tokens(run_over(torch.ones(1, 25, dtype=torch.bool)), [6], {})
    assert together[1, :25].equal(alone[0])


@pytest.mark.parametrize(("field", "value"), [("tokens", "masked"), ("token_share", 0.0), ("token_share", 1.5)])
def test_impossible_choices_of_tokens_are_refused(field, value):
    with pytest.raises(ValueError, match=f"Distillation.{field}={value}"):
        Distillation(**{field: value})
