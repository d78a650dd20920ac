"""Scales, rounding, gradients and observers against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sparse_xp.functional.fake_quant import (
    MinMaxObserver,
    activation_scale,
    fake_quantize_activation,
    fake_quantize_weight,
    quantize_weight,
    weight_scale,
)

WEIGHT = torch.tensor([[1.27, -0.64, 0.0], [-2.54, 0.03, 0.01], [0.0, 0.0, 0.0]])

# Weights


def test_scale_of_a_weight():
    # the largest of each row over 127; a row of zeros has the smallest number there is, and not 0
    smallest = torch.finfo(torch.float32).tiny
    assert weight_scale(WEIGHT).tolist() == pytest.approx([0.01, 0.02, smallest])
    assert weight_scale(WEIGHT)[2] == smallest
    assert weight_scale(WEIGHT, per_channel=False).item() == pytest.approx(0.02)
    assert weight_scale(WEIGHT, bits=4, per_channel=False).item() == pytest.approx(2.54 / 7)
    assert weight_scale(torch.tensor([[0.5, 0.254]])).item() == pytest.approx(0.5 / 127)  # none below 0
    assert weight_scale(WEIGHT.bfloat16()).dtype == torch.float32


def test_integers_of_a_weight():
    assert quantize_weight(WEIGHT, weight_scale(WEIGHT)).tolist() == [
        [127, -64, 0],
        [-127, 2, 0],
        [0, 0, 0],
    ]  # 1.5, 0.5: even
    assert quantize_weight(WEIGHT, torch.tensor(0.02)).tolist() == [[64, -32, 0], [-127, 2, 0], [0, 0, 0]]  # 63.5: even
    assert quantize_weight(WEIGHT, torch.tensor(0.01)).tolist() == [[127, -64, 0], [-127, 3, 1], [0, 0, 0]]  # no -128
    assert quantize_weight(WEIGHT, weight_scale(WEIGHT, 2), 2).tolist() == [[1, -1, 0], [-1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_fake_weight_is_its_integers_times_the_scale(bits, per_channel):
    torch.manual_seed(0)
    weight = torch.randn(16, 40) * torch.logspace(-3, 1, 16)[:, None]
    weight[3] = 0
    weight[5, ::3] = 0
    scale = weight_scale(weight, bits, per_channel)
    found = fake_quantize_weight(weight, scale, bits)
    assert found.equal(quantize_weight(weight, scale, bits) * (scale[:, None] if per_channel else scale))
    assert found[weight == 0].eq(0).all()
    assert (found - weight).abs().le((scale[:, None] if per_channel else scale) / 2 * 1.0001).all()


@pytest.mark.parametrize("scale", [torch.tensor(0.01), torch.tensor([0.01, 0.01])])
def test_the_gradient_goes_straight_through_inside_the_range_only(scale):
    weight = torch.tensor([[1.27, -1.27, 0.004], [1.28, -1.5, 0.0]], requires_grad=True)
    found = fake_quantize_weight(weight, scale)
    assert found.tolist()[1] == pytest.approx([1.27, -1.27, 0.0])
    found.backward(torch.full((2, 3), 3.0))
    assert weight.grad.tolist() == [[3, 3, 3], [0, 0, 3]]


# Activations


@pytest.mark.parametrize(
    ("low", "high", "bits", "scale", "zero_point"),
    [
        (-1.0, 1.55, 8, 0.01, 100),
        (-1.0, 0.5, 4, 0.1, 10),
        (0.5, 2.55, 8, 0.01, 0),  # made to hold 0
        (-2.55, -0.5, 8, 0.01, 255),
        (0.0, 0.0, 8, torch.finfo(torch.float32).tiny, 0),
    ],
)
def test_scale_of_an_activation(low, high, bits, scale, zero_point):
    found = activation_scale(torch.tensor(low), torch.tensor(high), bits)
    assert (found[0].item(), found[1].item()) == (pytest.approx(scale), zero_point)
    assert fake_quantize_activation(torch.zeros(3), *found, bits).eq(0).all()


def test_a_fake_activation_and_its_gradient():
    values = torch.tensor([-1.2, -1.0, 0.0, 0.014, 1.55, 1.6], requires_grad=True)
    found = fake_quantize_activation(values, torch.tensor(0.01), torch.tensor(100, dtype=torch.int32))
    assert found.tolist() == pytest.approx([-1.0, -1.0, 0.0, 0.01, 1.55, 1.55])
    found.sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 1, 1, 0]


def test_a_range_is_a_mean_at_first_and_then_a_moving_average():
    observer = MinMaxObserver()
    for i, (low, high) in enumerate([(-1.0, 2.0), (-3.0, 4.0), (-2.0, 9.0)], 1):
        observer.update(torch.tensor([low, 0.1, high]))
        assert observer.count == i
    assert (observer.low.item(), observer.high.item()) == (pytest.approx(-2.0), pytest.approx(5.0))
    observer.count = 1000
    observer.update(torch.tensor([-102.0, 5.0]))
    assert (observer.low.item(), observer.high.item()) == (
        pytest.approx(-3.0),
        pytest.approx(5.0),
    )  # a hundredth of -100


def test_a_mean_of_ranges_is_finite_for_a_constant_activation():
    observer = MinMaxObserver()
    observer.update(torch.zeros(4))
    scale, zero_point = activation_scale(observer.low, observer.high)
    assert math.isfinite(scale)
    assert zero_point == 0
