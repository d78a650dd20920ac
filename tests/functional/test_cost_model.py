"""What encoders cost and how many heads and neurons to keep, on numbers worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sparse_xp.functional.cost_model import (
    Costs,
    LayerShape,
    greedy_sizes,
    interpolate_size,
    layer_moves,
    minimum_cost,
    minimum_sizes,
    multiplication_costs,
    parameter_costs,
    scaled_size,
    uniform_sizes,
)

MINILM = LayerShape(hidden=384, heads=12, head_size=32, neurons=1536)
#: a head costs 10, a neuron 1
SIMPLE = Costs([10.0 * h for h in range(5)], [float(n) for n in range(65)], rest=3.0)


def test_parameters_are_those_of_the_six_matrices():
    costs = parameter_costs(MINILM)
    assert costs.heads[12] == 4 * 384 * 384
    assert costs.neurons[1536] == 2 * 384 * 1536
    assert costs.total([(6, 768)] * 6) == costs.total([(12, 1536)] * 6) / 2


def test_multiplications_have_both_products_of_attention():
    costs = multiplication_costs(MINILM, tokens=10)
    assert costs.heads[1] == 10 * 4 * 32 * 384 + 2 * 10 * 10 * 32
    assert costs.neurons[3] == 3 * 10 * 2 * 384


def test_a_projection_costs_as_much_as_half_as_many_neurons():
    # The upper half of the table: from 4 neurons, 10, to 8, 30, a neuron costs 5.
    costs = Costs([0.0, 1.0], [0.0, 1, 2, 3, 10, 15, 20, 25, 30], rest=7.0)
    assert costs.with_projection(6) == Costs(costs.heads, costs.neurons, rest=7.0 + 3 * 5)


def test_total_and_least():
    assert SIMPLE.total([(4, 64), (1, 16)]) == 3 + 40 + 64 + 10 + 16
    assert minimum_sizes([(4, 64), (2, 8)], 16) == [(1, 16), (1, 8)]


@pytest.mark.parametrize(
    ("share", "size"), [(1.0, (12, 100)), (0.5, (6, 48)), (0.49, (6, 48)), (0.25, (3, 16)), (0.0, (1, 16))]
)
def test_share_of(share, size):
    assert scaled_size((12, 100), share, 16) == size


@pytest.mark.parametrize(("part", "size"), [(0.5, (6, 768)), (0.25, (3, 384)), (0.75, (9, 1152)), (1.0, (12, 1536))])
def test_the_same_share_of_every_layer(part, size):
    costs = parameter_costs(MINILM)
    full = [(12, 1536)] * 6
    assert uniform_sizes(costs, full, part * costs.total(full), 16) == [size] * 6


def test_neurons_make_up_for_heads_that_were_rounded():
    # 0.625 of heads and neurons are 2 heads and 32 neurons, which cost 232; for a third head there is too little.
    dear = Costs([100.0 * h for h in range(5)], [float(n) for n in range(65)])
    assert uniform_sizes(dear, [(4, 64)], 250, 16) == [(2, 48)]
    # 52 is for 2 heads and 32 neurons exactly, 51.9 is not.
    assert uniform_sizes(SIMPLE, [(4, 64)], 3 + 52, 16) == [(2, 32)]
    assert uniform_sizes(SIMPLE, [(4, 64)], 3 + 51.9, 16) == [(2, 16)]


def test_a_budget_below_the_least_is_refused():
    for size in (uniform_sizes, lambda *a: greedy_sizes(*a[:2], [[0] * 4], [[0] * 64], *a[2:])):
        with pytest.raises(ValueError, match="one head and 16 neurons in each layer cost 29, more than 28"):
            size(SIMPLE, [(4, 64)], 28, 16)


def test_between_never_grows_and_ends_exactly():
    found = [interpolate_size((12, 1536), (3, 392), done / 50, 16) for done in range(51)]
    assert (found[0], found[-1]) == ((12, 1536), (3, 392))
    assert all(a[0] >= b[0] and a[1] >= b[1] for a, b in pairwise(found))
    assert interpolate_size((12, 1536), (6, 768), 0.5, 16) == (9, 1152)
    assert interpolate_size((4, 100), (2, 16), 0.01, 16) == (4, 100)  # 99.16, and up to a multiple that is not there


def test_the_least_worth_for_what_it_saves_goes_first():
    heads = [[1.0, 2.0, 3.0, 50.0], [40.0, 50.0, 60.0, 70.0]]
    neurons = [[10.0] * 64, [0.01] * 32 + [5.0] * 32]
    # For a unit of cost: head of layer 0: 0.1, 0.2, 0.3; neurons of layer 1: 0.01 twice, then 5; all others 4 and more.
    total = SIMPLE.total([(4, 64)] * 2)

    def left(saved):
        return greedy_sizes(SIMPLE, [(4, 64)] * 2, heads, neurons, total - saved, 16)

    assert left(0) == [(4, 64), (4, 64)]
    assert left(1) == [(4, 64), (4, 48)]
    assert left(32) == [(4, 64), (4, 32)]
    assert left(33) == [(3, 64), (4, 32)]
    assert left(62) == [(1, 64), (4, 32)]
    assert left(63) == [(1, 64), (3, 32)]  # a head of layer 1: 40 for 10, sixteen neurons of layer 1: 80 for 16


def test_what_went_before_is_not_counted_again():
    # Two neurons of 0 are out already; of the other four the two of 1 and 2 are next, not the zeros.
    scores = [[1.0, 2.0, 30.0, 30.0]]
    found = greedy_sizes(Costs([0, 1], list(range(7))), [(1, 4)], [[1.5]], scores, 3, 2)
    assert found == [(1, 2)]


def test_a_last_block_that_is_no_multiple_goes_first():
    costs = Costs([0, 0], list(range(101)))
    assert greedy_sizes(costs, [(1, 100)], [[1.0]], [[1.0] * 100], 99, 16) == [(1, 96)]


# Whole layers


def test_what_has_to_be_left_of_an_encoder_whose_layers_may_go():
    sizes = [(4, 64), (2, 8), (0, 0)]
    assert minimum_sizes(sizes, 16) == [(1, 16), (1, 8), (0, 0)]
    assert minimum_cost(SIMPLE, sizes, 16, layers=False) == 3 + 26 + 18
    assert minimum_cost(SIMPLE, sizes, 16, layers=True) == 3 + 18
    with pytest.raises(ValueError, match="one head and 16 neurons in a single layer cost 21, more than 20"):
        greedy_sizes(SIMPLE, sizes, [[0.0] * 4, [0.0] * 2, []], [[0.0] * 64, [0.0] * 8, []], 20, 16, [1.0] * 3)


def test_a_layer_goes_by_what_it_is_worth_as_a_whole():
    # Two layers cost 104 each. For a unit of cost: heads 1, neurons 2, the layers 0.5 and 10.
    heads, neurons, total = [[10.0] * 4] * 2, [[2.0] * 64] * 2, SIMPLE.total([(4, 64)] * 2)

    def left(saved, target, layers=(52.0, 1040.0), sizes=((4, 64), (4, 64))):
        return greedy_sizes(SIMPLE, sizes, heads, neurons, total - saved, 16, layers, total - target)

    assert left(1, 104) == [(0, 0), (4, 64)]  # ahead of its time, as the last budget wants so much
    assert left(1, 103) == [(3, 64), (4, 64)]  # not if it never does
    assert left(1, 104, (1040.0, 52.0)) == [(4, 64), (0, 0)]
    assert left(1, 104, (109.2, 1040.0)) == [(3, 64), (4, 64)]  # 1.05 a unit: heads first, for what is left costs less
    assert left(105, 178) == [(0, 0), (3, 64)]  # the last layer stays, whatever it is worth
    assert left(105, 178, (52.0, 0.0)) == [(3, 64), (0, 0)]
    assert left(106, 178, sizes=((0, 0), (4, 64))) == [(0, 0), (3, 64)]  # gone before


def test_a_layer_goes_for_want_of_anything_else():
    # The least of two layers costs 26 each; 26 of the 52 that are left would be too much, and there is no other way.
    found = greedy_sizes(
        SIMPLE, [(1, 16), (1, 16)], [[9.0], [9.0]], [[9.0] * 16, [9.0] * 16], 3 + 45, 16, [7.0, 6.0], 3 + 45
    )
    assert found == [(1, 16), (0, 0)]


def test_the_last_layer_is_never_removed():
    assert [move.layer for move in layer_moves(SIMPLE, [(4, 64), (0, 0), (1, 16)], [2.0, 0.0, 1.0])] == [0, 2]
    assert not list(layer_moves(SIMPLE, [(4, 64), (0, 0)], [2.0, 0.0]))
