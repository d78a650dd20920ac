"""The notation of times, and where a written time falls."""

from __future__ import annotations

from itertools import product

import pytest

from sparse_xp.clock import Clock, parse_time


@pytest.mark.parametrize(
    ("written", "number", "unit"),
    [
        (2, 2.0, "epochs"),
        (0.5, 0.5, "epochs"),
        (0, 0.0, "epochs"),
        ("3", 3.0, "epochs"),
        ("2.", 2.0, "epochs"),
        ("2.5 epochs", 2.5, "epochs"),
        ("1 epoch", 1.0, "epochs"),
        (1e-5, 0.00001, "epochs"),  # str() of it has an exponent
        ("500 steps", 500.0, "steps"),
        ("1 step", 1.0, "steps"),
        ("20steps", 20.0, "steps"),
        ("60%", 60.0, "%"),
        (" 12.5 % ", 12.5, "%"),
        ("0%", 0.0, "%"),
        ("100%", 100.0, "%"),
    ],
)
def test_notation(written, number, unit):
    assert parse_time(written) == (number, unit)


@pytest.mark.parametrize(
    "written",
    [-1, -0.5, "-1 steps", "", "soon", None, True, False, "steps", "5 minutes", "2,5", "10%%", "1 2", [1]],
)
def test_what_is_not_a_time_is_refused_by_name_with_the_notation(written):
    with pytest.raises(ValueError, match=r"^train\.save_every=.* is not a time.*'500 steps', or '60%'") as caught:
        parse_time(written, "train.save_every")
    assert repr(written) in str(caught.value)


@pytest.mark.parametrize("written", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_is_refused(written):
    with pytest.raises(ValueError, match="is not a time"):
        parse_time(written)


@pytest.mark.parametrize("written", ["100.1%", "250%"])
def test_more_than_the_whole_run_is_refused(written):
    with pytest.raises(ValueError, match=r"^end='.*' is after the end of the run: at most 100%"):
        parse_time(written, "end")


@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "total_steps"),
    [
        (3, 10, 30),
        (2.5, 4, 10),
        (2.5, 3, 8),  # 7.5
        (0.1, 3, 1),  # 0.3
        (0.0001, 100, 1),  # 0.01: never no step at all
        (1.1, 10, 11),  # 11.000000000000002 in floats
        (0.07, 100, 7),  # 7.000000000000001
        (2.3, 100, 230),  # 229.99999999999997
        (30, 5533, 165990),
    ],
)
def test_a_run_is_rounded_up_to_whole_steps(epochs, steps_per_epoch, total_steps):
    assert Clock.of(epochs, steps_per_epoch) == Clock(steps_per_epoch, total_steps)


def test_epoch_of_a_step_and_end():
    clock = Clock(steps_per_epoch=4, total_steps=10)
    assert [clock.epoch(step) for step in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 2.25]
    assert clock.end == 2.5


def test_where_written_times_fall():
    clock = Clock(steps_per_epoch=4, total_steps=10)
    assert clock.to_epochs(1.3) == 1.3  # epochs are taken as written, between two steps too
    assert clock.to_epochs("1.5 epochs") == 1.5
    assert clock.to_epochs("7 steps") == 1.75
    assert clock.to_epochs("60%") == 1.5  # step 6
    assert clock.to_epochs("33%") == 0.75  # 3.3 is nearest to step 3
    assert clock.to_epochs("37%") == 1.0  # 3.7 is nearest to step 4
    assert clock.to_epochs("0%") == 0.0
    assert clock.to_epochs("100%") == 2.5


LENGTHS = list(product((1, 3, 7, 10, 49, 5533), (1, 2, 9, 10, 101)))


@pytest.mark.parametrize(("steps_per_epoch", "total_steps"), LENGTHS)
def test_steps_land_on_whole_steps_exactly(steps_per_epoch, total_steps):
    clock = Clock(steps_per_epoch, total_steps)
    steps = range(total_steps + 1)
    assert [clock.to_epochs(f"{step} steps") for step in steps] == [clock.epoch(step) for step in steps]


@pytest.mark.parametrize(("steps_per_epoch", "total_steps"), LENGTHS)
def test_fractions_land_on_the_nearest_whole_step_exactly(steps_per_epoch, total_steps):
    clock = Clock(steps_per_epoch, total_steps)
    step_at = {clock.epoch(step): step for step in range(total_steps + 1)}
    for percent in range(101):
        step = step_at[clock.to_epochs(f"{percent}%")]  # KeyError: between two steps
        assert abs(100 * step - percent * total_steps) <= 50
    assert step_at[clock.to_epochs("100%")] == total_steps


def test_an_error_of_at_names_the_time():
    with pytest.raises(ValueError, match=r"^LearningRate\.end='tomorrow'"):
        Clock(4, 10).to_epochs("tomorrow", "LearningRate.end")


@pytest.mark.parametrize(
    ("at", "steps_per_epoch", "expected"),
    [(0.0, 5, 0), (0.3, 5, 2), (0.4, 5, 2), (0.41, 5, 3), (2.0, 5, 10), (0.1 + 0.2, 10, 3), (6.1, 20, 122)],
)
def test_the_first_step_at_or_after_a_time(at, steps_per_epoch, expected):
    assert Clock(steps_per_epoch, 1000).first_step(at) == expected
