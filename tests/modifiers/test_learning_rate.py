"""Learning-rate segments against numbers worked out by hand. T1, T2, T4 and T42 were recorded from SparseML 1.x."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sparse_xp.modifiers import LearningRate
from sparse_xp.modifiers.learning_rate import SHAPES, rate
from sparse_xp.recipe import Recipe
from tests.tiny import make_run

BEFORE = 0.7  # what the optimizer was made with


def rates(segments: dict[str, LearningRate], steps_per_epoch: int, total_steps: int) -> list[float]:
    """The learning rate of every step of a run."""
    optimizer = SimpleNamespace(param_groups=[{"lr": BEFORE}, {"lr": BEFORE}])
    run = make_run(steps_per_epoch, total_steps, optimizer=optimizer)
    recipe = Recipe(segments, run.clock)
    seen = []
    for step in range(total_steps):
        run.progress.step = step
        recipe.before_step(run)
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == second
        assert recipe.logs(run) == {"lr": first}
        seen.append(first)
    return seen


def test_linear():  # T1
    seen = rates({"decay": LearningRate(shape="linear", init_lr=0.1, final_lr=0.0, end=2)}, 4, 10)
    assert seen == pytest.approx([0.1, 0.0875, 0.075, 0.0625, 0.05, 0.0375, 0.025, 0.0125, 0, 0], abs=1e-15)
    assert (seen[0], seen[8], seen[9]) == (0.1, 0.0, 0.0)


T2 = [0.1, 0.09619398, 0.08535534, 0.06913417, 0.05, 0.03086583, 0.01464466, 0.00380602, 0, 0]


def test_cosine():  # T2
    seen = rates({"decay": LearningRate(shape="cosine", init_lr=0.1, final_lr=0.0, end=2)}, 4, 10)
    assert seen == pytest.approx(T2, abs=5e-9)
    assert (seen[0], seen[8], seen[9]) == (0.1, 0.0, 0.0)


def test_cosine_upwards_is_the_mirror_image():  # T2
    seen = rates({"warmup": LearningRate(shape="cosine", init_lr=0.0, final_lr=0.1, end=2)}, 4, 10)
    assert seen == pytest.approx([0.1 - value for value in T2], abs=5e-9)
    assert (seen[0], seen[8], seen[9]) == (0.0, 0.1, 0.1)


def test_constant_needs_no_final_rate():
    assert rates({"flat": LearningRate(shape="constant", init_lr=0.1)}, 2, 4) == [0.1] * 4


def test_constant_with_a_final_rate_is_a_step_at_its_end():
    flat = LearningRate(shape="constant", init_lr=0.1, final_lr=0.01, end="2 steps")
    assert rates({"flat": flat}, 2, 4) == [0.1, 0.1, 0.01, 0.01]


def test_an_end_between_two_steps_is_clamped():  # T4, where SparseML went on to -0.00769231
    seen = rates({"decay": LearningRate(init_lr=0.1, final_lr=0.0, end=1.3)}, 5, 9)
    expected = [0.1, 0.08461538, 0.06923077, 0.05384615, 0.03846154, 0.02307692, 0.00769231]
    assert seen[:7] == pytest.approx(expected, abs=5e-9)
    assert seen[7:] == [0.0, 0.0]


def test_a_junction_between_two_steps():  # T4: the peak of 0.1 falls between steps 1 and 2
    segments = {
        "warmup": LearningRate(init_lr=0.0, final_lr=0.1, end=0.3),
        "decay": LearningRate(init_lr=0.1, final_lr=0.0, start=0.3, end=2),
    }
    seen = rates(segments, 5, 10)
    assert seen[:5] == pytest.approx([0.0, 0.06666667, 0.09411765, 0.08235294, 0.07058824], abs=5e-9)


@pytest.mark.parametrize("names", [("first", "second"), ("second", "first")])
def test_a_junction_on_a_step_belongs_to_the_later_segment(names):
    segments = {
        "first": LearningRate(init_lr=0.1, final_lr=0.3, end="50%"),
        "second": LearningRate(init_lr=0.9, final_lr=0.5, start="50%"),
    }
    seen = rates({name: segments[name] for name in names}, 4, 8)  # in whichever order they are written
    assert seen == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.9, 0.8, 0.7, 0.6], abs=1e-15)
    assert seen[4] == 0.9


def test_warmup_decay_restart_over_180_steps():  # T42, the GoEmotions recipe
    segments = {
        "decay": LearningRate(init_lr=3.5e-5, final_lr=1e-8, end=6),
        "warmup": LearningRate(init_lr=1e-8, final_lr=5e-5, start=6, end=6.1),
        "again": LearningRate(init_lr=5e-5, final_lr=1e-8, start=6.1, end=9),
    }
    seen = rates(segments, 20, 180)
    steps = [0, 1, 119, 120, 121, 122, 123, 179]
    expected = [3.5e-5, 3.470842e-5, 3.015833e-7, 1e-8, 2.5005e-5, 5e-5, 4.913810e-5, 8.718966e-7]
    assert [seen[step] for step in steps] == pytest.approx(expected, rel=5e-7)
    assert (seen[0], seen[120], seen[122]) == (3.5e-5, 1e-8, 5e-5)


@pytest.mark.parametrize("names", [("warmup", "decay"), ("decay", "warmup")])
def test_a_warmup_that_a_short_run_rounds_to_nothing_is_left_out(names):
    segments = {
        "warmup": LearningRate(init_lr=0.0, final_lr=0.1, end="5%"),
        "decay": LearningRate(init_lr=0.1, final_lr=0.0, start="5%"),
    }
    seen = rates({name: segments[name] for name in names}, 4, 4)  # 5 % of 4 steps is 0.2 steps
    assert seen == pytest.approx([0.1, 0.075, 0.05, 0.025], abs=1e-15)


def test_the_last_value_stays_over_a_gap_until_the_next_segment():
    segments = {
        "warmup": LearningRate(init_lr=0.0, final_lr=0.2, start="1 step", end="3 steps"),
        "decay": LearningRate(init_lr=0.1, final_lr=0.0, start="6 steps", end="8 steps"),
    }
    seen = rates(segments, 10, 9)
    assert seen == pytest.approx([BEFORE, 0.0, 0.1, 0.2, 0.2, 0.2, 0.1, 0.05, 0.0], abs=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
def test_exactly_init_at_the_start_and_final_at_the_end(shape):
    init, final = 0.3, 0.9
    assert init + (final - init) != final  # so the formula alone would miss
    assert [rate(shape, init, final, x) for x in (-1.0, 0.0)] == [0.3, 0.3]
    assert [rate(shape, init, final, x) for x in (1.0, 7.0)] == [0.9, 0.9]


@pytest.mark.parametrize(("shape", "expected"), [("linear", 0.45), ("cosine", 0.387867966), ("constant", 0.3)])
def test_a_quarter_of_the_way(shape, expected):  # cosine: 0.3 + 0.6 * (1 - sqrt(1/2)) / 2
    assert rate(shape, 0.3, 0.9, 0.25) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": "linaer", "final_lr": 0.0}, r"LearningRate\.shape='linaer'.* Did you mean 'linear'\?"),
        ({"shape": "cosin", "final_lr": 0.0}, r"LearningRate\.shape='cosin'.* Did you mean 'cosine'\?"),
        ({"shape": "zigzag", "final_lr": 0.0}, r"LearningRate\.shape='zigzag': want one of linear, cosine, constant"),
        ({"shape": "linear"}, r"LearningRate with shape=linear needs final_lr"),
        ({"shape": "cosine", "init_lr": 0.1}, r"LearningRate with shape=cosine needs final_lr"),
        ({"init_lr": -1e-5, "final_lr": 0.0}, r"LearningRate\.init_lr=-1e-05: want a rate in \[0, 1\]"),
        ({"init_lr": 1e-5, "final_lr": 1.5}, r"LearningRate\.final_lr=1\.5: want a rate in \[0, 1\]"),
        ({"init_lr": float("nan"), "final_lr": 0.0}, r"LearningRate\.init_lr=nan"),
        ({"final_lr": 0.0, "start": "soon"}, r"LearningRate\.start='soon' is not a time"),
        ({"final_lr": 0.0, "end": "120%"}, r"LearningRate\.end='120%' lies behind the end of the run"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        LearningRate(**fields)
