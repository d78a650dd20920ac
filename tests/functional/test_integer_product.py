"""Products of integers in half precision: exact, with the gradients of float32, without waiting for a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import linear

from sparse_xp.functional.fake_quant import (
    MinMaxObserver,
    activation_scale,
    fake_quantize_activation,
    fake_quantize_weight,
    weight_scale,
)
from sparse_xp.functional.integer_product import integer_linear, integer_weight
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import prepare

HALF = [torch.bfloat16, torch.float16]
#: the rounding error of each
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


def tensors(device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Return an activation, a weight and a bias."""
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 50, 96), (40, 96), (40,)
    made = [torch.randn(shape, generator=generator).to(device).requires_grad_() for shape in shapes]
    return made[0], made[1], made[2]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_the_product_is_that_of_float32(dtype: torch.dtype, per_channel: bool, biased: bool) -> None:
    activation, weight, bias = tensors()
    grid = activation_scale(torch.tensor(-1.5), torch.tensor(2.5))  # a part of the values is outside
    rounded = fake_quantize_activation(activation, *grid)
    scale = weight_scale(weight, 8, per_channel)
    bias_ = bias if biased else None
    found = integer_linear(rounded, grid[0], weight, integer_weight(weight, scale, 8, dtype), bias_, torch.float32)
    wanted = linear(rounded.double(), fake_quantize_weight(weight, scale).double(), bias_.double() if biased else None)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), wanted, rtol=1e-6, atol=1e-6 * float(wanted.detach().abs().max()))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("factor", [1.0, 0.5])  # half a scale: half of the weights are outside
def test_gradients_are_those_of_float64_to_the_digits_of_half_precision(dtype: torch.dtype, factor: float) -> None:
    results = []
    upstream = torch.randn(3, 50, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
    for exact in (False, True):
        activation, weight, bias = tensors()
        grid = activation_scale(torch.tensor(-1.5), torch.tensor(2.5))
        scale, rounded = weight_scale(weight) * factor, fake_quantize_activation(activation, *grid)
        if exact:
            product = linear(rounded.double(), fake_quantize_weight(weight, scale).double(), bias.double())
        else:
            product = integer_linear(rounded, grid[0], weight, integer_weight(weight, scale, 8, dtype), bias, dtype)
        product.backward(upstream.to(product.dtype))
        results.append((activation.grad, weight.grad, bias.grad))
    for name, found, wanted in zip(("activation", "weight", "bias"), *results, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found == 0, wanted == 0)
        # Only the gradient of the activation meets rounded weights.
        error = EPSILON[dtype] if name == "activation" else 1e-6
        assert torch.allclose(found, wanted, rtol=0, atol=error * float(wanted.detach().abs().max()))


def test_a_weight_that_fits_its_scale_has_its_whole_gradient() -> None:
    _, weight, _ = tensors()
    scale = weight_scale(weight)
    assert integer_weight(weight, scale, 8, torch.float16, fitting=True).inside is None
    assert bool(integer_weight(weight, scale, 8, torch.float16).inside.all())  # type: ignore[union-attr]


@pytest.fixture
def _fake_operator() -> Iterator[None]:
    """Tell tensors without data what PyTorch's operator, one kernel on a GPU, returns."""
    library = torch.library.Library("aten", "FRAGMENT")
    name = "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams"

    def shapes(values: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        return torch.empty_like(values), torch.empty_like(values, dtype=torch.bool)

    torch.library.register_fake(f"aten::{name}", shapes, lib=library)
    yield
    library._destroy()


@pytest.mark.usefixtures("_fake_operator")
@pytest.mark.parametrize("dtype", HALF)
def test_nothing_asks_for_a_value(dtype: torch.dtype) -> None:
    """A tensor without data raises where a GPU would have to be waited for."""
    activation, weight, bias = tensors("meta")
    observer = MinMaxObserver()
    for _ in range(2):
        observer.update(activation)
        grid = observer.grid(activation.device, 8)
        assert grid is not None
        rounded = integer_weight(weight, weight_scale(weight), 8, dtype)
        inputs = fake_quantize_activation(activation, *grid)
        product = integer_linear(inputs, grid[0], weight, rounded, bias, dtype)
        assert (product.dtype, product.shape) == (dtype, (3, 50, 40))
        product.sum().backward()
    fake_quantize_weight(weight, weight_scale(weight, per_channel=False)).sum().backward()
    with pytest.raises(RuntimeError):
        activation.sum().item()


@pytest.mark.usefixtures("_fake_operator")
@pytest.mark.parametrize("outputs", [True, False])
def test_a_model_on_a_gpu_asks_for_no_value_and_stays_there(outputs: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8, bias=False), nn.LayerNorm(8), nn.Linear(8, 2))
    prepare(model, QuantConfig(), QuantMode(active=True), linear_outputs=outputs)
    with FakeTensorMode(), torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(torch.empty(parameter.shape, device="cuda"), requires_grad=False))
        for _ in range(2):
            found = model.train()(torch.empty(3, 5, 8, device="cuda"))
        assert (found.device.type, found.dtype, found.shape) == ("cuda", torch.float32, (3, 5, 2))


def test_compiled_it_is_the_same() -> None:
    results = []
    for compiled in (False, True):
        activation, weight, bias = tensors()
        grid = activation_scale(torch.tensor(-1.5), torch.tensor(2.5))

        def multiply(activation: Tensor, weight: Tensor, bias: Tensor, grid: tuple[Tensor, Tensor] = grid) -> Tensor:
            rounded = integer_weight(weight, weight_scale(weight), 8, torch.bfloat16)
            return integer_linear(
                fake_quantize_activation(activation, *grid), grid[0], weight, rounded, bias, torch.bfloat16
            )

        called = torch.compile(multiply, backend="aot_eager", fullgraph=True) if compiled else multiply
        product = called(activation, weight, bias)
        product.float().square().sum().backward()
        results.append((product, activation.grad, weight.grad, bias.grad))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
