"""Rows that are held out for evaluation."""

from __future__ import annotations

import pytest

from sparse_xp.tasks.holdout import held_out, permutation


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_each_class_gives_the_same_share(share):
    keys = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    chosen = held_out(keys, True, share)
    assert [sum(keys[i] == key for i in chosen) for key in "abc"] == [60 * share, 30 * share, 10 * share]
    assert chosen == sorted(set(chosen)) == held_out(keys, True, share)


def test_rows_of_a_class_are_drawn_in_the_order_of_the_permutation():
    keys = [i % 3 for i in range(30)]
    order = permutation(30)
    expected = [row for key in range(3) for row in [i for i in order if keys[i] == key][:2]]
    assert held_out(keys, True, 0.2) == sorted(expected)


def test_questions_on_one_text_stay_together():
    keys = [i // 5 for i in range(100)]
    chosen = held_out(keys, False, 0.2)
    assert len(chosen) == 20
    assert {keys[i] for i in chosen}.isdisjoint(keys[i] for i in range(100) if i not in chosen)
