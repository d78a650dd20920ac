"""The cost of an encoder as a function of its heads and neurons, and which of them fit into a budget.

Pure functions of numbers, without torch. A *size* is a pair (heads, neurons) of one layer. A cost is a number of
parameters, of multiplications, or milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

Size = tuple[int, int]


@dataclass(frozen=True)
class LayerShape:
    """The full size of a layer: a residual stream of ``hidden``, ``heads`` of ``head_size``, and ``neurons``.

    ``gated``: each neuron is multiplied by a gate, so that it has three rows of the hidden size and not two.
    ``relative_positions``: rows of a table of relative positions whose keys and queries each layer computes.
    ``head_matrices``: matrices in which a head has rows or columns: query, key, value, output, and those of positions.
    """

    hidden: int
    heads: int
    head_size: int
    neurons: int
    gated: bool = False
    relative_positions: int = 0
    head_matrices: int = 4

    @property
    def rows_per_neuron(self) -> int:
        """Rows and columns of the matrices of a feed-forward block that belong to one neuron."""
        return 3 if self.gated else 2


@dataclass(frozen=True)
class Costs:
    """``heads[h]``: cost of an attention block with h heads; ``neurons[n]``: of a feed-forward block with n neurons.

    ``rest``: the fixed cost, independent of the layers. Both lists are monotone and begin with 0: a layer without heads
    and neurons costs nothing, because it is removed.
    """

    heads: Sequence[float]
    neurons: Sequence[float]
    rest: float = 0.0

    def total(self, sizes: Sequence[Size]) -> float:
        """Return the cost of an encoder with layers of these ``sizes``."""
        return self.rest + sum(self.heads[h] + self.neurons[n] for h, n in sizes)

    def with_projection(self, dimensions: int, rows_per_neuron: int = 2) -> Costs:
        """Add the projection of factored embeddings, ``dimensions`` wide, to the fixed cost.

        It costs as much as ``dimensions / rows_per_neuron`` neurons: a neuron has so many rows of the hidden size, a
        dimension one. The cost of a neuron is the slope of the upper half of the table.
        """
        most = len(self.neurons) - 1
        neuron = (self.neurons[most] - self.neurons[most // 2]) / (most - most // 2)
        return replace(self, rest=self.rest + neuron * dimensions / rows_per_neuron)


def parameter_costs(shape: LayerShape) -> Costs:
    """Count the weights of the matrices: in BERT 4 * head_size * hidden for a head, 2 * hidden for a neuron."""
    head, neuron = shape.head_matrices * shape.head_size * shape.hidden, shape.rows_per_neuron * shape.hidden
    return linear_costs(shape, head, neuron)


def multiplication_costs(shape: LayerShape, tokens: int) -> Costs:
    """Count the multiplications for one row of ``tokens``: the matrices and the products of attention.

    Relative positions add the products of their keys and queries with those of tokens; the keys and queries themselves
    are constants once a model is trained.
    """
    products = 2 * tokens * (tokens + shape.relative_positions) * shape.head_size
    head = tokens * 4 * shape.head_size * shape.hidden + products
    neuron = tokens * shape.rows_per_neuron * shape.hidden
    return linear_costs(shape, head, neuron)


def linear_costs(shape: LayerShape, head: int, neuron: int) -> Costs:
    """Return costs of ``head`` for every head and ``neuron`` for every neuron, up to the full ``shape``."""
    return Costs([head * h for h in range(shape.heads + 1)], [neuron * n for n in range(shape.neurons + 1)])


# Bounds


def minimum_sizes(sizes: Sequence[Size], multiple: int) -> list[Size]:
    """Return what has to be left of layers of these ``sizes``: one head and ``multiple`` neurons, or all if fewer."""
    return [(min(1, heads), min(multiple, neurons)) for heads, neurons in sizes]


def minimum_cost(costs: Costs, sizes: Sequence[Size], multiple: int, layers: bool) -> float:
    """Return the lowest cost that an encoder of these ``sizes`` can reach.

    With ``layers``, whole layers may be removed down to a single one, the cheapest.
    """
    smallest = minimum_sizes(sizes, multiple)
    return min(costs.total([size]) for size in smallest if any(size)) if layers else costs.total(smallest)


def check_budget(costs: Costs, sizes: Sequence[Size], budget: float, multiple: int, layers: bool = False) -> None:
    """Raise ValueError if even the minimum sizes cost more than ``budget``."""
    smallest = minimum_cost(costs, sizes, multiple, layers)
    if smallest > budget:
        where = "a single layer" if layers else "each layer"
        raise ValueError(f"one head and {multiple} neurons in {where} cost {smallest:g}, more than {budget:g}")


# The same share of every layer


def uniform_sizes(costs: Costs, sizes: Sequence[Size], budget: float, multiple: int) -> list[Size]:
    """Return the largest sizes within ``budget`` that keep the same share of heads and of neurons in every layer.

    The number of heads is small, so rounding it leaves budget unused; neurons are added for the remainder.
    Raises ValueError for a budget below the minimum sizes.
    """
    check_budget(costs, sizes, budget, multiple)
    if costs.total(sizes) <= budget:
        return list(sizes)
    chosen = scaled_sizes(sizes, largest_share(costs, sizes, budget, multiple), multiple)
    while True:
        more = [(h, min(n + multiple, most)) for (h, n), (_, most) in zip(chosen, sizes, strict=True)]
        if more == chosen or costs.total(more) > budget:
            return chosen
        chosen = more


def largest_share(costs: Costs, sizes: Sequence[Size], budget: float, multiple: int) -> float:
    """Return the largest share in [0, 1] of every layer that fits into ``budget``, by bisection to 2^-40."""
    low, high = 0.0, 1.0
    for _ in range(40):  # the cost is a monotone step function of the share
        middle = (low + high) / 2
        fits = costs.total(scaled_sizes(sizes, middle, multiple)) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return low


def scaled_sizes(sizes: Sequence[Size], share: float, multiple: int) -> list[Size]:
    """Return ``scaled_size`` of each layer."""
    return [scaled_size(size, share, multiple) for size in sizes]


def scaled_size(size: Size, share: float, multiple: int) -> Size:
    """Return about ``share`` of the heads and neurons, at least the minimum; neurons rounded down to ``multiple``."""
    heads, neurons = size
    return (
        max(1, round(share * heads)),
        neurons if share >= 1 else max(min(multiple, neurons), int(share * neurons + 1e-9) // multiple * multiple),
    )


def interpolate_size(first: Size, last: Size, done: float, multiple: int) -> Size:
    """Return the size on the way from ``first`` to ``last``: exactly these at ``done`` 0 and 1, monotone between.

    Heads and neurons are rounded up, neurons to a ``multiple``.
    """
    if done <= 0:
        return first
    if done >= 1:
        return last
    heads, neurons = (a - (a - b) * done for a, b in zip(first, last, strict=True))
    return max(last[0], -int(-heads // 1)), min(first[1], max(last[1], -int(-neurons // multiple) * multiple))


# The least valuable groups of the whole encoder


class Move(NamedTuple):
    """A step of the greedy search: the score that it loses, the cost that it saves, and the layer's size after it."""

    lost: float
    saved: float
    layer: int
    size: Size

    @property
    def price(self) -> float:
        """Score lost for each unit of cost saved."""
        return self.lost / self.saved if self.saved > 0 else float("inf")


def greedy_sizes(
    costs: Costs,
    sizes: Sequence[Size],
    heads: Sequence[Sequence[float]],
    neurons: Sequence[Sequence[float]],
    budget: float,
    multiple: int,
    layers: Sequence[float] | None = None,
    target: float | None = None,
) -> list[Size]:
    """Return the sizes within ``budget`` after removing the groups of the lowest price, one after the other.

    A group is a head, or a run of ``multiple`` neurons, in any layer. This is the greedy rule for a knapsack.

    ``heads``, ``neurons``: for each layer the scores of the groups that it has, ascending.

    ``layers``: scores of whole layers, which may then be removed by the same rule (size (0, 0)); one layer stays.
    Removing a layer may overshoot the current budget but not the final ``target`` (None: the current budget), unless no
    smaller move is left.

    Raises ValueError for a budget that cannot be met.
    """
    check_budget(costs, sizes, budget, multiple, layers is not None)
    target = budget if target is None else target
    minimum = minimum_sizes(sizes, multiple)
    lost = [([0.0, *accumulate(h)], [0.0, *accumulate(n)]) for h, n in zip(heads, neurons, strict=True)]
    left, total = list(sizes), costs.total(sizes)
    while total > budget:
        groups = group_moves(costs, left, minimum, lost, multiple)
        whole = [] if layers is None else list(layer_moves(costs, left, layers))
        moves = [*groups, *(move for move in whole if total - move.saved >= target)] or whole
        if not moves:  # rounding: the minimum sizes are within the budget, but sums of differences are not
            break
        best = min(moves, key=lambda move: move.price)
        left[best.layer] = best.size
        total -= best.saved
    return left


def group_moves(
    costs: Costs,
    left: Sequence[Size],
    minimum: Sequence[Size],
    lost: Sequence[tuple[Sequence[float], Sequence[float]]],
    multiple: int,
) -> Iterator[Move]:
    """Yield the next smaller size of every layer above its minimum: one head less, or neurons down to a ``multiple``.

    ``lost``: for the heads and for the neurons of each layer, the sums of the k lowest scores for k = 0, 1, ...
    """
    for layer, (heads, neurons) in enumerate(left):
        fewer = max(minimum[layer][0], heads - 1)
        if fewer < heads:
            saved = costs.heads[heads] - costs.heads[fewer]
            yield Move(lost_between(lost[layer][0], heads, fewer), saved, layer, (fewer, neurons))
        fewer = max(minimum[layer][1], (neurons - 1) // multiple * multiple)
        if fewer < neurons:
            saved = costs.neurons[neurons] - costs.neurons[fewer]
            yield Move(lost_between(lost[layer][1], neurons, fewer), saved, layer, (heads, fewer))


def layer_moves(costs: Costs, left: Sequence[Size], scores: Sequence[float]) -> Iterator[Move]:
    """Yield the removal of each whole layer, as long as another one is left."""
    present = [layer for layer, size in enumerate(left) if any(size)]
    if len(present) > 1:
        for layer in present:
            heads, neurons = left[layer]
            yield Move(scores[layer], costs.heads[heads] + costs.neurons[neurons], layer, (0, 0))


def lost_between(lost: Sequence[float], now: int, then: int) -> float:
    """Return the scores lost from ``now`` groups to ``then``, given the sums of the k lowest scores."""
    removed = len(lost) - 1 - now  # in earlier moves, the lowest first
    return lost[removed + now - then] - lost[removed]
