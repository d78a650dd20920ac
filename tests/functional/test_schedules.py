"""Ramps and schedules against numbers worked out by hand.

Some of the expected values were recorded from SparseML 1.x: the comments say which.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from sparse_xp.functional.schedules import RAMPS, progress, ramp, scheduled_sparsity, share_due, update_due


@pytest.mark.parametrize(
    ("inter_func", "epoch", "expected"),
    [
        ("cubic", 2, 0.0),
        ("cubic", 5, 0.2949074074),
        ("cubic", 6.5, 0.4046875),
        ("cubic", 11, 0.6125),
        ("cubic", 15.5, 0.6890625),
        ("cubic", 19.99, 0.6999999999),
        ("cubic", 20, 0.7),
        ("linear", 5, 0.1166666667),
        ("linear", 11, 0.35),
        ("inverse_cubic", 5, 0.0412747798),
        ("inverse_cubic", 11, 0.1444096318),
    ],
)
def test_schedule_from_0_to_70_percent_over_epochs_2_to_20(inter_func, epoch, expected):  # recorded from SparseML 1.x
    assert scheduled_sparsity(inter_func, 0.0, 0.7, (epoch - 2) / 18) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("final", "expected"),
    [
        (0.9, [0.7, 0.7842592593, 0.8407407407, 0.875, 0.8925925926, 0.8990740741, 0.9]),
        (0.97, [0.7, 0.81375, 0.89, 0.93625, 0.96, 0.96875, 0.97]),
    ],
)
def test_schedule_of_the_obert_recipes(final, expected):  # recorded from SparseML 1.x: epochs 2, 6, ..., 26
    values = [scheduled_sparsity("cubic", 0.7, final, (epoch - 2) / 24) for epoch in range(2, 27, 4)]
    assert values == pytest.approx(expected, abs=1e-10)


def test_schedule_of_the_masked_lm_recipe_and_of_a_short_one():  # recorded from SparseML 1.x
    values = [scheduled_sparsity("cubic", 0.7, 0.9, epoch / 2.75) for epoch in (0.25, 0.5, 1.0)]
    assert values == pytest.approx([0.7497370398, 0.790458302, 0.8484598047], abs=1e-10)
    values = [scheduled_sparsity("cubic", 0.0, 0.75, x) for x in (0, 0.25, 0.5, 0.75, 1)]
    assert values == pytest.approx([0.0, 0.43359375, 0.65625, 0.73828125, 0.75], abs=1e-15)


@pytest.mark.parametrize("inter_func", RAMPS)
def test_schedule_lands_exactly_and_stays(inter_func):
    init, final = 0.3, 0.9
    assert init + (final - init) != final  # so the formula alone would miss
    assert [scheduled_sparsity(inter_func, init, final, x) for x in (-0.5, 0.0)] == [init, init]
    assert [scheduled_sparsity(inter_func, init, final, x) for x in (1.0, 1.5)] == [final, final]


@pytest.mark.parametrize("inter_func", RAMPS)
def test_ramps_rise_from_0_to_1_and_are_clamped(inter_func):  # in SparseML inverse_cubic(1.5) was a complex number
    values = [ramp(inter_func, x / 10) for x in range(-2, 13)]
    assert values[:3] == [0.0, 0.0, 0.0]
    assert values[-3:] == [1.0, 1.0, 1.0]
    assert all(low < high for low, high in pairwise(values[2:-2]))


def test_unknown_ramp_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'quadratic'; expected one of cubic, linear, inverse_cubic"):
        scheduled_sparsity("quadratic", 0.0, 0.8, 0.5)


@pytest.mark.parametrize(
    ("now", "last", "due"),
    [
        (0.9, -1.0, False),  # before the window
        (1.0, -1.0, True),  # the first update is at its start
        (1.4, 1.0, False),
        (1.5, 1.0, True),
        (1.3 + 0.2, 1.3 - 0.3, True),  # 1.5 >= 1.0 + 0.5, up to rounding
        (2.9, 2.5, False),
        (3.0, 2.9, True),  # the last is at its end, however short ago another was
        (3.5, 2.9, True),  # or at the first step behind it
        (3.5, 3.0, False),
        (9.0, 3.5, False),
    ],
)
def test_when_an_update_is_due(now, last, due):
    assert update_due(now, last, start=1.0, end=3.0, every=0.5) is due
    assert (share_due("linear", now, last, (1.0, 3.0), 3.0, 0.5) is not None) is due


def test_an_update_at_the_very_beginning_was_one():
    assert not update_due(0.1, 0.0, start=0.0, end=3.0, every=0.5)
    assert update_due(0.5, 0.0, start=0.0, end=3.0, every=0.5)


def test_the_share_that_is_due():
    assert share_due("linear", 1.5, 1.0, (1.0, 3.0), 3.0, 0.5) == 0.25
    assert share_due("cubic", 2.0, 1.0, (1.0, 3.0), 3.0, 0.5) == 0.875
    assert share_due("cubic", 3.5, 1.0, (1.0, 3.0), 3.0, 0.5) == 1.0


def test_a_ramp_that_ends_with_the_run_is_closed_by_its_last_update():
    shares = [share_due("linear", now, 0.0, (0.0, 1.75), 2.0, 0.25) for now in (0.5, 1.0, 1.5, 1.75)]
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_the_progress_of_a_window():
    assert (progress(1.0, 1.0, 3.0), progress(1.5, 1.0, 3.0), progress(4.0, 1.0, 3.0)) == (0.0, 0.25, 1.5)
    assert progress(2.0, 2.0, 2.0) == 1.0  # empty
