"""A fake-quantized model as a graph of integers: modules with int8 weights, and what they become in ONNX.

The fake-quantization of PyTorch does not export with dynamic shapes, so the deployed copy of a model computes by two
operators of its own, which become QuantizeLinear and DequantizeLinear: the form that onnxruntime and OpenVINO turn into
integer kernels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from sparse_xp.functional.fake_quant import QuantEmbedding, QuantLinear, activation_scale, integers


@torch.library.custom_op("sparse_xp::requantize", mutates_args=())
def requantize(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """``values`` rounded to what uint8 can say of them; ``scale`` float32, ``zero_point`` uint8, both scalars."""
    zero = zero_point.to(torch.float32)
    return ((values / scale).round() + zero).clamp(0, 255).sub(zero).mul(scale)


@requantize.register_fake
def _(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(values)


@torch.library.custom_op("sparse_xp::requantize_dynamic", mutates_args=())
def requantize_dynamic(values: Tensor) -> Tensor:
    """As ``requantize``, with the range that these very values have."""
    scale, zero_point = activation_scale(*torch.aminmax(values))
    return requantize(values, scale, zero_point.to(torch.uint8))


@requantize_dynamic.register_fake
def _(values: Tensor) -> Tensor:
    return torch.empty_like(values)


@torch.library.custom_op("sparse_xp::dequantize", mutates_args=())
def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """int8 times ``scale``: a scalar, or one for each entry of the last dimension of a matrix."""
    return values.to(torch.float32) * scale


@dequantize.register_fake
def _(values: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(values, dtype=torch.float32)


class Requantize(nn.Module):
    """An activation as uint8 says it."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, low: Tensor, high: Tensor, bits: int):
        super().__init__()
        scale, zero_point = activation_scale(low, high, bits)
        self.register_buffer("scale", scale.cpu())
        self.register_buffer("zero_point", zero_point.to(torch.uint8).cpu())
        # QuantizeLinear of ONNX has 8 bits: what more than fewer bits can say is cut off before.
        steps = (-zero_point.item(), 2**bits - 1 - zero_point.item())
        self.limits = None if bits == 8 else tuple(float(each * scale) for each in steps)

    def forward(self, values: Tensor) -> Tensor:
        """The same shape."""
        return requantize(values if self.limits is None else values.clamp(*self.limits), self.scale, self.zero_point)


class RequantizeDynamic(nn.Module):
    """An activation as uint8 says it, with a range of its own in every batch."""

    def forward(self, values: Tensor) -> Tensor:
        """The same shape."""
        return requantize_dynamic(values)


class IntegerLinear(nn.Module):
    """A Linear with an int8 weight, stored transposed as MatMul wants it."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, module: QuantLinear):
        super().__init__()
        quant, settings = module.quant, module.quant.settings
        scale = quant.scale_of(module.weight, settings.per_channel)
        self.register_buffer("weight", integers(module.weight, scale, quant.bits).t().contiguous().cpu())
        self.register_buffer("scale", scale.cpu())
        self.register_buffer("bias", None if module.bias is None else module.bias.detach().cpu())
        self.inputs = conversion(module, quant.inputs)
        self.outputs = conversion(module, quant.outputs)

    def forward(self, values: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        # A product of two matrices and its bias onnxruntime would first make a Gemm, for which it has no integer kernel
        # that gives floating point: the heads that see one vector a row would be computed in float32.
        flat = values.ndim == 2
        found = torch.matmul(self.inputs(values[None] if flat else values), dequantize(self.weight, self.scale))
        found = self.outputs(found if self.bias is None else found + self.bias)
        return found[0] if flat else found


class IntegerEmbedding(nn.Module):
    """An Embedding with an int8 table: rows are looked up before they are scaled."""

    weight: Tensor
    scale: Tensor

    def __init__(self, module: QuantEmbedding):
        super().__init__()
        scale = module.quant.scale_of(module.weight, per_channel=False)
        self.register_buffer("weight", integers(module.weight, scale, module.quant.bits).cpu())
        self.register_buffer("scale", scale.cpu())
        self.outputs = conversion(module, module.quant.outputs)

    def forward(self, numbers: Tensor) -> Tensor:
        """Numbers of rows in, rows of the table out."""
        return self.outputs(dequantize(embedding(numbers, self.weight), self.scale))


def conversion(module: QuantLinear | QuantEmbedding, seen: Any) -> nn.Module:
    """What happens to an activation on its way: nothing, a fixed conversion, or one by its own range."""
    settings = module.quant.settings
    if seen is None:
        return nn.Identity()
    if settings.dynamic:
        return RequantizeDynamic()
    if seen.low is None:
        return nn.Identity()
    return Requantize(seen.low, seen.high, settings.activation_bits)


def integer_copy(model: nn.Module) -> nn.Module:
    """A copy of a fake-quantized model that computes with int8 weights, for export; equal to rounding."""
    found = copy.deepcopy(model).cpu().eval()
    made: dict[nn.Module, nn.Module] = {}
    for name, module in list(found.named_modules(remove_duplicate=False)):  # one module may have two names
        if isinstance(module, QuantLinear | QuantEmbedding):
            if module not in made:
                made[module] = IntegerLinear(module) if isinstance(module, QuantLinear) else IntegerEmbedding(module)
            parent, _, child = name.rpartition(".")
            setattr(found.get_submodule(parent), child, made[module])
    return found


def translations(opset: int) -> dict[Callable[..., Any], Callable[..., Any]]:
    """What each operator of ours becomes in ONNX."""
    import onnxscript

    op: Any = getattr(onnxscript, f"opset{opset}")

    def to_requantize(values: Any, scale: Any, zero_point: Any) -> Any:
        return op.DequantizeLinear(op.QuantizeLinear(values, scale, zero_point), scale, zero_point)

    def to_requantize_dynamic(values: Any) -> Any:
        return op.DequantizeLinear(*op.DynamicQuantizeLinear(values))

    def to_dequantize(values: Any, scale: Any) -> Any:
        return op.DequantizeLinear(values, scale, axis=1)

    operators: Any = torch.ops.sparse_xp
    return {
        operators.requantize.default: to_requantize,
        operators.requantize_dynamic.default: to_requantize_dynamic,
        operators.dequantize.default: to_dequantize,
    }
