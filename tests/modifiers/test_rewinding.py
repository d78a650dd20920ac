"""The factors of the authors' code (arXiv:2111.05754), and the modifier around them."""

from __future__ import annotations

import pytest

from sparse_xp.clock import Clock
from sparse_xp.modifiers.rewinding import RewoundLearningRate, rewound


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0), (500, 0.5), (999, 0.999), (1000, 1.020408), (1500, 1.010204), (1999, 1.000020), (2000, 1.020408),
        (49999, 1.000020), (50000, 1.020408), (51000, 1.0), (75000, 0.510204), (100000, 0),
    ],
)  # fmt: skip
def test_the_published_schedule(step, factor):
    assert rewound(step, 100_000, 1000, 0, 50_000, 1000) == pytest.approx(factor, abs=5e-7)


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0), (5, 0.5), (10, 1), (15, 0.9), (19, 0.82), (20, 0.8), (25, 0.7), (29, 0.62), (30, 0.8), (59, 0.62),
        (60, 0.8), (61, 0.78), (80, 0.4), (99, 0.02), (100, 0),
    ],
)  # fmt: skip
def test_a_ramp_that_starts_later(step, factor):
    assert rewound(step, 100, 10, 20, 60, 10) == pytest.approx(factor)


def test_the_modifier_reads_it_off_the_clock():
    clock = Clock(10, 100)
    modifier = RewoundLearningRate(peak_lr=0.5, warmup="10%", ramp_start=2, ramp_end="60%", update_frequency="10 steps")
    assert modifier.active_steps(clock) == range(100)
    for step in range(100):
        assert modifier.rate_at(clock, step) == pytest.approx(0.5 * rewound(step, 100, 10, 20, 60, 10))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peak_lr": 0}, "expected a rate"),
        ({"peak_lr": 2}, "expected a rate"),
        ({"peak_lr": 1e-3, "ramp_end": "x"}, "not a time"),
    ],
)
def test_impossible_values_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        RewoundLearningRate(**fields)


def test_a_ramp_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValueError, match="ramp_start=60% is after ramp_end=50%"):
        RewoundLearningRate(peak_lr=1e-3, ramp_start="60%").window(Clock(10, 100))
