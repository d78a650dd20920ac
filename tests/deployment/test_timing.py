"""Timing a file and a reference in turn, worked out by hand."""

from __future__ import annotations

import pytest

from sparse_xp.deployment.timing import make_batch, summarize_rounds, take_turns


def test_files_and_engines_take_turns():
    now, order = [0.0], []

    def call(name, seconds):
        def run(batch):
            order.append(name)
            now[0] += seconds

        return run

    pairs = {("x", 1): (call("x", 1.0), call("X", 2.0)), ("y", 1): (call("y", 3.0), call("Y", 3.0))}
    found = take_turns(pairs, {}, 2, lambda: now[0])
    assert "".join(order) == "xXxX" + "yYyY" + "XxYy" + "xXyY"
    assert found == {("x", 1): [(1.0, 2.0)] * 2, ("y", 1): [(3.0, 3.0)] * 2}


def test_short_calls_are_repeated_within_a_turn():
    now, calls = [0.0], [0, 0]

    def call(side, seconds):
        def run(batch):
            calls[side] += 1
            now[0] += seconds

        return run

    found = take_turns({("x", 1): (call(0, 0.004), call(1, 0.008))}, {}, 3, lambda: now[0])
    assert calls == [2 + 3 * 5, 2 + 3 * 5]  # 20 ms of the faster one
    assert found[("x", 1)] == [(pytest.approx(0.004), pytest.approx(0.008))] * 3


def test_medians_and_the_median_of_ratios():
    # a round in which the machine was busy moves neither
    found = summarize_rounds("x", 1, 32, 128, [(0.1, 0.2), (0.1, 0.2), (0.2, 0.5), (9.0, 9.0), (0.1, 0.2)])
    assert (found.ms, found.reference_ms, found.rows_per_second) == (100.0, 200.0, 320.0)
    assert (found.ratio, found.low, found.high) == (2.0, 2.0, 2.0)
    assert summarize_rounds("x", 1, 1, 8, [(0.1, 0.2)]).ratio == 2.0


def test_a_batch_has_real_tokens_of_the_vocabulary():
    batch = make_batch(3, 7, 11)
    assert {name: value.shape for name, value in batch.items()} == dict.fromkeys(batch, (3, 7))
    assert 0 <= batch["input_ids"].min() <= batch["input_ids"].max() < 11
    assert batch["attention_mask"].all()
