"""Convert a fake-quantized model into one with int8 weights, and its operators into those of ONNX.

PyTorch's fake quantization does not export with dynamic shapes. ``integer_copy`` therefore builds a copy of the model
from custom operators, which ``translations`` maps to QuantizeLinear and DequantizeLinear: the form that onnxruntime and
OpenVINO turn into integer kernels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from sparse_xp.functional.fake_quant import MinMaxObserver, activation_scale, quantize_weight
from sparse_xp.functional.quant_attention import ATTENTION_NAME, CHILD, QuantAttention
from sparse_xp.functional.quant_modules import QuantEmbedding, QuantLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.library.custom_op("sparse_xp::requantize", mutates_args=())
def requantize(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Round ``values`` to uint8 and back to float32. ``scale``: float32, ``zero_point``: uint8, both scalars."""
    zero = zero_point.to(torch.float32)
    return ((values / scale).round() + zero).clamp(0, 255).sub(zero).mul(scale)


@requantize.register_fake
def _requantize_shape(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(values)


@torch.library.custom_op("sparse_xp::requantize_dynamic", mutates_args=())
def requantize_dynamic(values: Tensor) -> Tensor:
    """Round as ``requantize`` does, with the range of ``values`` itself."""
    scale, zero_point = activation_scale(*torch.aminmax(values))
    rounded: Tensor = requantize(values, scale, zero_point.to(torch.uint8))
    return rounded


@requantize_dynamic.register_fake
def _requantize_dynamic_shape(values: Tensor) -> Tensor:
    return torch.empty_like(values)


@torch.library.custom_op("sparse_xp::dequantize", mutates_args=())
def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """Multiply int8 by ``scale``: a scalar, or one for each column of a matrix."""
    return values.to(torch.float32) * scale


@dequantize.register_fake
def _dequantize_shape(values: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(values, dtype=torch.float32)


class Requantize(nn.Module):
    """Rounds an activation to uint8, with a fixed range."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, low: Tensor, high: Tensor, bits: int):
        super().__init__()
        scale, zero_point = activation_scale(low, high, bits)
        self.register_buffer("scale", scale.cpu())
        self.register_buffer("zero_point", zero_point.to(torch.uint8).cpu())
        # QuantizeLinear of ONNX has 8 bits: values beyond the range of fewer bits are clamped before.
        steps = (-zero_point.item(), 2**bits - 1 - zero_point.item())
        self.limits = None if bits == 8 else tuple(float(step * scale) for step in steps)

    def forward(self, values: Tensor) -> Tensor:
        """Return the rounded values, in the same shape."""
        clamped = values if self.limits is None else values.clamp(*self.limits)
        rounded: Tensor = requantize(clamped, self.scale, self.zero_point)
        return rounded


class RequantizeDynamic(nn.Module):
    """Rounds an activation to uint8, with the range of each batch."""

    def forward(self, values: Tensor) -> Tensor:
        """Return the rounded values, in the same shape."""
        rounded: Tensor = requantize_dynamic(values)
        return rounded


class IntegerLinear(nn.Module):
    """A Linear with an int8 weight, stored transposed as MatMul expects it."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, module: QuantLinear):
        super().__init__()
        quant = module.quant
        scale = quant.scale_of(module.weight)
        self.register_buffer("weight", quantize_weight(module.weight, scale, quant.bits).t().contiguous().cpu())
        self.register_buffer("scale", scale.cpu())
        self.register_buffer("bias", None if module.bias is None else module.bias.detach().cpu())
        self.inputs = activation_rounding(module, quant.input_observer)
        self.outputs = activation_rounding(module, quant.output_observer)

    def forward(self, values: Tensor) -> Tensor:
        """Return [..., out] for [..., in]."""
        # onnxruntime fuses a product of two matrices and its bias into a Gemm, which has no integer kernel with a
        # floating-point result: classification heads, which see one vector a row, would be computed in float32. A
        # leading dimension prevents that.
        flat = values.ndim == 2
        product = torch.matmul(self.inputs(values[None] if flat else values), dequantize(self.weight, self.scale))
        result: Tensor = self.outputs(product if self.bias is None else product + self.bias)
        return result[0] if flat else result


class IntegerEmbedding(nn.Module):
    """An Embedding with an int8 table, whose rows are looked up before they are scaled."""

    weight: Tensor
    scale: Tensor

    def __init__(self, module: QuantEmbedding):
        super().__init__()
        scale = module.quant.scale_of(module.weight)
        self.register_buffer("weight", quantize_weight(module.weight, scale, module.quant.bits).cpu())
        self.register_buffer("scale", scale.cpu())
        self.outputs = activation_rounding(module, module.quant.output_observer)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of the table with these ids."""
        rows: Tensor = self.outputs(dequantize(embedding(ids, self.weight), self.scale))
        return rows


class IntegerAttention(nn.Module):
    """Rounds the factors of attention's products, each with a range of its own."""

    active = True

    def __init__(self, module: QuantAttention):
        super().__init__()
        self.factors = nn.ModuleDict(
            {factor: activation_rounding(module, observer) for factor, observer in module.observers.items()}
        )

    def forward(self, factor: str, values: Tensor) -> Tensor:
        """Return the rounded values of a factor, in the same shape."""
        rounded: Tensor = self.factors[factor](values)
        return rounded


def activation_rounding(
    module: QuantLinear | QuantEmbedding | QuantAttention, observer: MinMaxObserver | None
) -> nn.Module:
    """Return the rounding of an activation of ``module``: none, with a fixed range, or with the range of each batch.

    ``observer``: of the activation, None if it is not quantized.
    """
    config = module.quant.config
    if observer is None:
        return nn.Identity()
    if config.dynamic:
        return RequantizeDynamic()
    if observer.low is None or observer.high is None:  # never observed
        return nn.Identity()
    return Requantize(observer.low, observer.high, config.activation_bits)


def integer_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a fake-quantized model with int8 weights, for export. It computes the same up to rounding."""
    result: PreTrainedModel = copy.deepcopy(model).cpu().eval()
    converted: dict[nn.Module, nn.Module] = {}
    for name, module in list(result.named_modules(remove_duplicate=False)):  # a tied module has two names
        if isinstance(module, QuantLinear | QuantEmbedding):
            if module not in converted:
                integer = IntegerLinear(module) if isinstance(module, QuantLinear) else IntegerEmbedding(module)
                converted[module] = integer
            parent, _, child = name.rpartition(".")
            setattr(result.get_submodule(parent), child, converted[module])
        elif isinstance(module, QuantAttention):
            result.get_submodule(name.rpartition(".")[0]).register_module(CHILD, IntegerAttention(module))
            result.set_attn_implementation(ATTENTION_NAME)
    return result


def translations(opset: int) -> dict[Callable[..., object], Callable[..., object]]:
    """Return the ONNX translation of each custom operator, for torch.onnx.export."""
    import onnxscript  # takes a second, and only quantized models need it

    op: Any = getattr(onnxscript, f"opset{opset}")

    # PyTorch reads the annotations of these functions: under `object` it accepts tensors of every type. Their arguments
    # and results are values of the graph that it builds.
    def to_requantize(values: object, scale: object, zero_point: object) -> object:
        return op.DequantizeLinear(op.QuantizeLinear(values, scale, zero_point), scale, zero_point)

    def to_requantize_dynamic(values: object) -> object:
        return op.DequantizeLinear(*op.DynamicQuantizeLinear(values))

    def to_dequantize(values: object, scale: object) -> object:
        return op.DequantizeLinear(values, scale, axis=1)

    operators: Any = torch.ops.sparse_xp
    return {
        operators.requantize.default: to_requantize,
        operators.requantize_dynamic.default: to_requantize_dynamic,
        operators.dequantize.default: to_dequantize,
    }
