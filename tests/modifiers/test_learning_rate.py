"""Learning-rate segments against numbers worked out by hand, or recorded from SparseML 1.x where a comment says so."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sparse_xp.errors import UserError
from sparse_xp.modifiers import LearningRate, ScheduledLearningRate, SetLearningRate
from sparse_xp.modifiers.learning_rate import SHAPES, cyclic_rate, rate
from sparse_xp.modifiers.modifier_list import ModifierList
from tests.tiny import make_run

BEFORE = 0.7  # what the optimizer was made with


def rates(segments: dict[str, LearningRate], steps_per_epoch: int, total_steps: int) -> list[float]:
    """The learning rate of every step of a run."""
    optimizer = SimpleNamespace(param_groups=[{"lr": BEFORE}, {"lr": BEFORE}])
    run = make_run(steps_per_epoch, total_steps, optimizer=optimizer)
    recipe = ModifierList(segments, run.clock)
    seen = []
    for step in range(total_steps):
        run.progress.step = step
        recipe.before_step(run)
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == second
        assert recipe.logs(run) == {"lr": first}
        seen.append(first)
    return seen


def test_linear():  # recorded from SparseML 1.x
    seen = rates({"decay": LearningRate(shape="linear", init_lr=0.1, final_lr=0.0, end=2)}, 4, 10)
    assert seen == pytest.approx([0.1, 0.0875, 0.075, 0.0625, 0.05, 0.0375, 0.025, 0.0125, 0, 0], abs=1e-15)
    assert (seen[0], seen[8], seen[9]) == (0.1, 0.0, 0.0)


COSINE = [0.1, 0.09619398, 0.08535534, 0.06913417, 0.05, 0.03086583, 0.01464466, 0.00380602, 0, 0]


def test_cosine():  # recorded from SparseML 1.x
    seen = rates({"decay": LearningRate(shape="cosine", init_lr=0.1, final_lr=0.0, end=2)}, 4, 10)
    assert seen == pytest.approx(COSINE, abs=5e-9)
    assert (seen[0], seen[8], seen[9]) == (0.1, 0.0, 0.0)


def test_cosine_upwards_is_the_mirror_image():  # recorded from SparseML 1.x
    seen = rates({"warmup": LearningRate(shape="cosine", init_lr=0.0, final_lr=0.1, end=2)}, 4, 10)
    assert seen == pytest.approx([0.1 - value for value in COSINE], abs=5e-9)
    assert (seen[0], seen[8], seen[9]) == (0.0, 0.1, 0.1)


def test_constant_needs_no_final_rate():
    assert rates({"flat": LearningRate(shape="constant", init_lr=0.1)}, 2, 4) == [0.1] * 4


def test_constant_with_a_final_rate_is_a_step_at_its_end():
    flat = LearningRate(shape="constant", init_lr=0.1, final_lr=0.01, end="2 steps")
    assert rates({"flat": flat}, 2, 4) == [0.1, 0.1, 0.01, 0.01]


def test_an_end_between_two_steps_is_clamped():  # where SparseML went on to -0.00769231
    seen = rates({"decay": LearningRate(init_lr=0.1, final_lr=0.0, end=1.3)}, 5, 9)
    expected = [0.1, 0.08461538, 0.06923077, 0.05384615, 0.03846154, 0.02307692, 0.00769231]
    assert seen[:7] == pytest.approx(expected, abs=5e-9)
    assert seen[7:] == [0.0, 0.0]


def test_a_junction_between_two_steps():  # the peak of 0.1 falls between steps 1 and 2
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


def test_warmup_decay_restart_over_180_steps():  # recorded from SparseML 1.x: the GoEmotions recipe
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
        (
            {"shape": "zigzag", "final_lr": 0.0},
            r"LearningRate\.shape='zigzag': expected one of linear, cosine, constant",
        ),
        ({"shape": "linear"}, r"LearningRate with shape=linear needs final_lr"),
        ({"shape": "cosine", "init_lr": 0.1}, r"LearningRate with shape=cosine needs final_lr"),
        ({"init_lr": -1e-5, "final_lr": 0.0}, r"LearningRate\.init_lr=-1e-05: expected a rate in \[0, 1\]"),
        ({"init_lr": 1e-5, "final_lr": 1.5}, r"LearningRate\.final_lr=1\.5: expected a rate in \[0, 1\]"),
        ({"init_lr": float("nan"), "final_lr": 0.0}, r"LearningRate\.init_lr=nan"),
        ({"final_lr": 0.0, "start": "soon"}, r"LearningRate\.start='soon' is not a time"),
        ({"final_lr": 0.0, "end": "120%"}, r"LearningRate\.end='120%' is after the end of the run"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        LearningRate(**fields)


# Cyclic: recorded from SparseML 1.x

DOWN = [0.1, 0.09, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01]


def test_cyclic_linear():  # recorded from SparseML 1.x
    cyclic = LearningRate(shape="cyclic_linear", init_lr=0.1, final_lr=0.01, cycle=2, end=4)
    seen = rates({"cyclic": cyclic}, 5, 22)
    assert seen == pytest.approx([*DOWN, *DOWN, 0.01, 0.01], abs=1e-15)
    assert (seen[9], seen[10], seen[19], seen[20]) == (0.01, 0.1, 0.01, 0.01)


def test_the_last_cycle_is_shortened():  # recorded from SparseML 1.x
    cyclic = LearningRate(shape="cyclic_linear", init_lr=0.1, final_lr=0.01, cycle=2, end=5)
    seen = rates({"cyclic": cyclic}, 5, 25)
    assert seen == pytest.approx([*DOWN, *DOWN, 0.1, 0.0775, 0.055, 0.0325, 0.01], abs=1e-15)
    assert (seen[20], seen[24]) == (0.1, 0.01)


def test_cycles_begin_with_the_first_step_of_their_segment():
    # From 0.3 epochs, which is step 2 of 5 an epoch; a cycle of 0.55 epochs is three steps (2.75)
    cyclic = LearningRate(shape="cyclic_linear", init_lr=0.3, final_lr=0.1, cycle=0.55, start=0.3, end=2)
    assert rates({"cyclic": cyclic}, 5, 10) == pytest.approx(
        [BEFORE, BEFORE, 0.3, 0.2, 0.1, 0.3, 0.2, 0.1, 0.3, 0.1], abs=1e-15
    )


@pytest.mark.parametrize(
    ("position", "cycle", "total", "expected"),
    [(0, 1, 5, 0.1), (4, 4, 5, 0.1), (3, 4, 5, 0.1), (0, 9, 2, 0.3), (1, 9, 2, 0.1), (2, 5, 9, 0.2), (6, 5, 8, 0.2)],
)
def test_a_step_of_a_cycle(position, cycle, total, expected):
    assert cyclic_rate(0.3, 0.1, position, cycle, total) == pytest.approx(expected, abs=1e-15)


# One-time settings


def test_a_setting_stays_when_no_segment_acts():
    segments = {
        "decay": LearningRate(init_lr=0.4, final_lr=0.2, end="2 steps"),
        "set": SetLearningRate(learning_rate=0.05, start="4 steps"),
    }
    assert rates(segments, 4, 7) == pytest.approx([0.4, 0.3, 0.2, 0.2, 0.05, 0.05, 0.05], abs=1e-15)


def test_a_setting_where_a_segment_ends_has_the_last_word():
    segments = {
        "set": SetLearningRate(learning_rate=0.05, start=0.7),  # both in step 3 of 4 an epoch
        "decay": LearningRate(init_lr=0.4, final_lr=0.1, end=0.75),
    }
    assert rates(segments, 4, 5) == pytest.approx([0.4, 0.3, 0.2, 0.05, 0.05], abs=1e-15)


@pytest.mark.parametrize("start", [0.41, 0.5])  # the first step at or after it is 2 of 4 an epoch, as that of 0.45
def test_a_segment_that_begins_in_the_same_step_has_the_last_word(start):
    segments = {
        "decay": LearningRate(init_lr=0.4, final_lr=0.0, start=0.45, end=1.25),
        "set": SetLearningRate(learning_rate=0.9, start=start),
    }
    seen = rates(segments, 4, 5)[:4]  # at 0.5: 0.4 * (1 - 0.05 / 0.8)
    assert seen == pytest.approx([BEFORE, BEFORE, 0.375, 0.25], abs=1e-15)


@pytest.mark.parametrize("value", [1e-8, 0.5])
def test_goemotions_with_its_setting(value):  # the recipe sets 1e-8, any other value is overwritten just so
    segments = {
        "set": SetLearningRate(learning_rate=value, start=6),
        "again": LearningRate(init_lr=5e-5, final_lr=1e-8, start=6.1, end=9),
        "warmup": LearningRate(init_lr=1e-8, final_lr=5e-5, start=6, end=6.1),
        "decay": LearningRate(init_lr=3.5e-5, final_lr=1e-8, end=6),
    }
    seen = rates(segments, 20, 180)
    steps = [0, 1, 119, 120, 121, 122, 123, 179]
    expected = [3.5e-5, 3.470842e-5, 3.015833e-7, 1e-8, 2.5005e-5, 5e-5, 4.913810e-5, 8.718966e-7]
    assert [seen[step] for step in steps] == pytest.approx(expected, rel=5e-7)
    assert (seen[120], seen[121]) == (1e-8, pytest.approx(2.5005e-5, rel=1e-12))


# Schedulers: the rates recorded from SparseML 1.x, three steps an epoch


@pytest.mark.parametrize(
    ("lr_class", "lr_kwargs", "expected"),
    [
        ("StepLR", {"step_size": 1, "gamma": 0.5}, [0.1] * 3 + [0.05] * 3 + [0.025] * 3),
        ("ExponentialLR", {"gamma": 0.5}, [0.1] * 3 + [0.05] * 3 + [0.025] * 3),
        ("MultiStepLR", {"milestones": [1, 3], "gamma": 0.1}, [0.1] * 3 + [0.01] * 6 + [0.001] * 3),
        (
            "CosineAnnealingWarmRestarts",
            {"lr_min": 0.01, "cycle_epochs": 2},
            [0.1, 0.093971, 0.0775, 0.055, 0.0325, 0.016029, 0.1, 0.093971, 0.0775],
        ),
    ],
)
def test_schedulers(lr_class, lr_kwargs, expected):
    segment = ScheduledLearningRate(lr_class=lr_class, lr_kwargs=lr_kwargs, init_lr=0.1)
    assert rates({"it": segment}, 3, len(expected)) == pytest.approx(expected, abs=5e-7)
    assert min(rates({"it": segment}, 3, 60)) >= lr_kwargs.get("lr_min", 0)


def test_a_scheduler_in_its_window_and_a_setting_after_it():
    segments = {
        "steps": ScheduledLearningRate(
            lr_class="MultiStepLR", lr_kwargs={"milestones": [1.5], "gamma": 0.5}, init_lr=0.4, start=1, end=2
        ),
        "set": SetLearningRate(learning_rate=0.05, start="9 steps"),
    }
    seen = rates(segments, 4, 10)  # the milestone counts from the start of the run
    assert seen == pytest.approx([BEFORE] * 4 + [0.4] * 2 + [0.2] * 3 + [0.05], abs=1e-15)


def test_a_restart_is_not_missed_by_rounding():
    segment = ScheduledLearningRate(
        lr_class="CosineAnnealingWarmRestarts", lr_kwargs={"lr_min": 0.0, "cycle_epochs": 0.3}, init_lr=0.1
    )
    seen = rates({"it": segment}, 10, 31)  # 0.9 / 0.3 < 3
    assert [step for step, value in enumerate(seen) if value == 0.1] == list(range(0, 31, 3))


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (LearningRate, {"final_lr": 0.0, "cycle": 2}, r"LearningRate\.cycle=2 is not used by shape=linear"),
        (LearningRate, {"shape": "cyclic_linear", "final_lr": 0.0, "cycle": 0}, r"cycle=0: expected a time above 0"),
        (LearningRate, {"shape": "cyclic_linear"}, r"shape=cyclic_linear needs final_lr"),
        (SetLearningRate, {"learning_rate": 0.0}, r"SetLearningRate\.learning_rate=0\.0: expected a rate in \(0, 1\]"),
        (SetLearningRate, {"learning_rate": 1.5}, r"SetLearningRate\.learning_rate=1\.5"),
        (SetLearningRate, {"learning_rate": float("nan")}, r"SetLearningRate\.learning_rate=nan"),
        (SetLearningRate, {"learning_rate": 0.1, "end": 3}, r"SetLearningRate\.end=3: SetLearningRate acts once"),
        (ScheduledLearningRate, {"lr_class": "SteLR", "init_lr": 0.1}, r"lr_class='SteLR'.* Did you mean 'StepLR'\?"),
        (ScheduledLearningRate, {"lr_class": "StepLR", "init_lr": 0.0}, r"init_lr=0\.0: expected a rate in \(0, 1\]"),
        (
            ScheduledLearningRate,
            {"lr_class": "StepLR", "init_lr": 0.1, "lr_kwargs": {"gamma": 0.1}},
            r"lr_kwargs has gamma: StepLR needs step_size and gamma",
        ),
        (
            ScheduledLearningRate,
            {"lr_class": "ExponentialLR", "init_lr": 0.1, "lr_kwargs": {"gamma": 2}},
            r"lr_kwargs\.gamma=2: expected a factor in \(0, 1\]",
        ),
        (
            ScheduledLearningRate,
            {"lr_class": "MultiStepLR", "init_lr": 0.1, "lr_kwargs": {"gamma": 0.1, "milestones": 1}},
            r"lr_kwargs\.milestones=1: expected a list of epochs",
        ),
        (
            ScheduledLearningRate,
            {
                "lr_class": "CosineAnnealingWarmRestarts",
                "init_lr": 0.1,
                "lr_kwargs": {"lr_min": 0.2, "cycle_epochs": 1},
            },
            r"lr_kwargs\.lr_min=0\.2: expected a rate from 0 to init_lr=0\.1",
        ),
        (
            ScheduledLearningRate,
            {"lr_class": "StepLR", "init_lr": 0.1, "lr_kwargs": {"gamma": 0.1, "step_size": 0}},
            r"lr_kwargs\.step_size=0: expected a number of epochs above 0",
        ),
        (
            ScheduledLearningRate,
            {"lr_class": "StepLR", "init_lr": 0.1, "lr_kwargs": {"gamma": "half", "step_size": 1}},
            r"lr_kwargs\.gamma='half': expected a number",
        ),
    ],
)
def test_refusals_of_the_others_name_the_key(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind(**fields)


@pytest.mark.parametrize(("milestone", "start"), [(3, 0), (1, 1), (0.5, 1)])
def test_a_milestone_outside_of_the_segment(milestone, start):
    kwargs = {"milestones": [milestone], "gamma": 0.1}
    segment = ScheduledLearningRate(lr_class="MultiStepLR", lr_kwargs=kwargs, init_lr=0.1, start=start)
    with pytest.raises(UserError, match=rf"milestones: {milestone} lies outside of the segment"):
        rates({"it": segment}, 2, 6)


def test_a_setting_behind_the_last_step():
    with pytest.raises(UserError, match=r"SetLearningRate: start=2\.7 is after the beginning of the last step"):
        rates({"it": SetLearningRate(learning_rate=0.1, start=2.7)}, 2, 6)


def test_two_that_drive_the_rate_at_once():
    segments = {
        "one": LearningRate(init_lr=0.1, final_lr=0.0),
        "other": ScheduledLearningRate(lr_class="ExponentialLR", lr_kwargs={"gamma": 0.5}, init_lr=0.1, start=1),
    }
    with pytest.raises(UserError, match="both drive the learning rate, and overlap"):
        rates(segments, 2, 6)
