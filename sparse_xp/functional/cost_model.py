"""What an encoder costs with so many heads and feed-forward neurons in each layer, and how many of them to keep.

Pure functions of numbers, without torch. A *size* is a pair (heads, neurons) of one layer; a cost is a number of
parameters, of multiplications, or milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

Size = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """The full size of a layer: residual stream ``hidden`` wide, ``heads`` of ``head_size``, ``neurons``."""

    hidden: int
    heads: int
    head_size: int
    neurons: int


@dataclass(frozen=True)
class Costs:
    """``heads[h]``: of an attention block with h heads; ``neurons[n]``: of a feed-forward block with n neurons.

    ``rest``: what is paid whatever the layers have. Neither list ever falls, and both begin with 0: a layer that has
    nothing left is not there.
    """

    heads: Sequence[float]
    neurons: Sequence[float]
    rest: float = 0.0

    def total(self, sizes: Sequence[Size]) -> float:
        """Of an encoder with layers of these sizes."""
        return self.rest + sum(self.heads[h] + self.neurons[n] for h, n in sizes)

    def with_map(self, dimensions: int) -> Costs:
        """The same with a matrix from factored embeddings to the hidden states in what is paid in any case.

        It multiplies as much as half so many neurons, between the two matrices of theirs.
        """
        most = len(self.neurons) - 1
        neuron = (self.neurons[most] - self.neurons[most // 2]) / (most - most // 2)
        return replace(self, rest=self.rest + neuron * dimensions / 2)


def parameter_costs(shape: Shape) -> Costs:
    """Weights of the six matrices: 4 * head_size * hidden for a head, 2 * hidden for a neuron."""
    head, neuron = 4 * shape.head_size * shape.hidden, 2 * shape.hidden
    return Costs([head * h for h in range(shape.heads + 1)], [neuron * n for n in range(shape.neurons + 1)])


def multiplication_costs(shape: Shape, tokens: int) -> Costs:
    """Multiplications for one row of ``tokens``: those of the six matrices, and of the two products of attention."""
    head = tokens * 4 * shape.head_size * shape.hidden + 2 * tokens**2 * shape.head_size
    neuron = tokens * 2 * shape.hidden
    return Costs([head * h for h in range(shape.heads + 1)], [neuron * n for n in range(shape.neurons + 1)])


def least(sizes: Sequence[Size], multiple: int) -> list[Size]:
    """What has to be left of layers of these sizes: one head, and ``multiple`` neurons (or all, if they are fewer)."""
    return [(min(1, heads), min(multiple, neurons)) for heads, neurons in sizes]


def least_cost(costs: Costs, sizes: Sequence[Size], multiple: int, layers: bool) -> float:
    """The least that an encoder of these sizes can come to; with ``layers`` one that has a single layer left."""
    smallest = least(sizes, multiple)
    return min(costs.total([size]) for size in smallest if any(size)) if layers else costs.total(smallest)


def share_of(size: Size, share: float, multiple: int) -> Size:
    """About ``share`` of the heads and of the neurons; the neurons a whole multiple, both at least the least."""
    heads, neurons = size
    return (
        max(1, round(share * heads)),
        neurons if share >= 1 else max(min(multiple, neurons), int(share * neurons + 1e-9) // multiple * multiple),
    )


def even_sizes(costs: Costs, sizes: Sequence[Size], budget: float, multiple: int) -> list[Size]:
    """The largest sizes within ``budget`` that keep the same share of heads and of neurons in every layer.

    Heads are few and their number is rounded: neurons make up for it, as far as the budget goes.
    Raises ValueError for a budget that the least sizes exceed.
    """
    check_budget(costs, sizes, budget, multiple)
    low, high = 0.0, 1.0
    for _ in range(40):  # the cost is a step function of the share that never falls
        middle = (low + high) / 2
        fits = costs.total([share_of(size, middle, multiple) for size in sizes]) <= budget
        low, high = (middle, high) if fits else (low, middle)
    found = list(sizes) if costs.total(sizes) <= budget else [share_of(size, low, multiple) for size in sizes]
    while True:
        more = [(h, min(n + multiple, most)) for (h, n), (_, most) in zip(found, sizes, strict=True)]
        if more == found or costs.total(more) > budget:
            return found
        found = more


def between(first: Size, last: Size, done: float, multiple: int) -> Size:
    """A size on the way from ``first`` to ``last``, exactly these at 0 and 1; it never grows with ``done``."""
    if done <= 0:
        return first
    if done >= 1:
        return last
    heads, neurons = (a - (a - b) * done for a, b in zip(first, last, strict=True))
    return max(last[0], -int(-heads // 1)), min(first[1], max(last[1], -int(-neurons // multiple) * multiple))


def chosen_sizes(
    costs: Costs,
    sizes: Sequence[Size],
    heads: Sequence[Sequence[float]],
    neurons: Sequence[Sequence[float]],
    budget: float,
    multiple: int,
    layers: Sequence[float] | None = None,
    target: float | None = None,
) -> list[Size]:
    """The sizes within ``budget`` when heads and runs of ``multiple`` neurons go one by one, anywhere in the encoder.

    ``heads``, ``neurons``: for each layer the scores of those that it has, ascending. That goes next which has the
    least score for what it saves (the greedy rule for a knapsack).

    ``layers``: the score of each layer as a whole, by which it goes under the same rule; its size is (0, 0), then, and
    one layer stays. As it is much at once, it may go before the ``budget`` of a moment wants so much, but not where
    less than ``target`` (the last budget; None: this one) would be left, unless there is nothing else to go.
    Raises ValueError for a budget that cannot be met.
    """
    check_budget(costs, sizes, budget, multiple, layers is not None)
    sums = [
        ([0.0, *accumulate(h)], [0.0, *accumulate(n)], size) for h, n, size in zip(heads, neurons, sizes, strict=True)
    ]
    left = [list(size) for size in sizes]
    tables = (costs.heads, costs.neurons)
    floors = least(sizes, multiple)
    total = costs.total(sizes)
    target = budget if target is None else target

    def smaller(layer: int, kind: int) -> int:
        """The next size down: one head, or down to a whole multiple of neurons."""
        now = left[layer][kind]
        return max(floors[layer][kind], now - 1 if kind == 0 else (now - 1) // multiple * multiple)

    def groups() -> Iterator[tuple[float, float, int, Size]]:
        """What may go of single layers: the score for what it saves, that saving, the layer, and its size after it."""
        for layer, kind in ((layer, kind) for layer in range(len(left)) if any(left[layer]) for kind in (0, 1)):
            now, then = left[layer][kind], smaller(layer, kind)
            if then == now:
                continue
            gone = len(sums[layer][kind]) - 1 - now  # of this layer so many are out already, the least first
            lost = sums[layer][kind][gone + now - then] - sums[layer][kind][gone]
            saved = tables[kind][now] - tables[kind][then]
            size = (then, left[layer][1]) if kind == 0 else (left[layer][0], then)
            yield lost / saved if saved > 0 else float("inf"), saved, layer, size

    def whole() -> Iterator[tuple[float, float, int, Size]]:
        """The same of layers as a whole."""
        there = [layer for layer, size in enumerate(left) if any(size)]
        if layers is None or len(there) == 1:
            return
        for layer in there:
            saved = tables[0][left[layer][0]] + tables[1][left[layer][1]]
            yield layers[layer] / saved, saved, layer, (0, 0)

    while total > budget:
        fitting = [each for each in whole() if total - each[1] >= target]
        moves = [*groups(), *fitting] or list(whole())
        if not moves:  # rounding: the least sizes are within the budget, and sums of differences are not
            break
        _, saved, layer, size = min(moves, key=lambda move: move[0])
        left[layer] = list(size)
        total -= saved
    return [(h, n) for h, n in left]


def check_budget(costs: Costs, sizes: Sequence[Size], budget: float, multiple: int, layers: bool = False) -> None:
    """Raise ValueError if even the least sizes cost more than ``budget``."""
    smallest = least_cost(costs, sizes, multiple, layers)
    if smallest > budget:
        where = "a single layer" if layers else "each layer"
        raise ValueError(f"one head and {multiple} neurons in {where} cost {smallest:g}, more than {budget:g}")
