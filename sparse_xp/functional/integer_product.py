"""The product of a fake-quantized activation and weight on tensor cores, exact in half precision.

A fake-quantized activation is scale * (integer - zero point), a weight is scale * integer. The integers lie within
plus and minus 255, which bfloat16 and float16 hold exactly. Tensor cores multiply them and add in float32. So the
product differs from one of float32 by the order of its sums alone, and costs a sixteenth.

Gradients are computed as autocast computes them: factors in half precision, sums in float32.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sparse_xp.functional.fake_quant import AutogradContext, per_row, weight_steps


class IntegerWeight(NamedTuple):
    """A matrix [out, in] in half precision: its integers, and its ``values``: these times ``scale``, a scalar or [out].

    ``inside``: where the gradient passes; None for everywhere.
    """

    integers: Tensor
    values: Tensor
    scale: Tensor
    inside: Tensor | None


def integer_weight(
    weight: Tensor, scale: Tensor, bits: int, dtype: torch.dtype, *, fitting: bool = False
) -> IntegerWeight:
    """Return ``weight`` in integers of ``bits``, as ``dtype``. ``fitting``: nothing of it exceeds its scale."""
    steps, limited = weight_steps(weight, scale, bits)
    values = (limited * per_row(scale, weight)).to(dtype)
    return IntegerWeight(limited.to(dtype), values, scale, None if fitting else steps == limited)


def integer_linear(
    activation: Tensor, scale: Tensor, weight: Tensor, rounded: IntegerWeight, bias: Tensor | None, out: torch.dtype
) -> Tensor:
    """Return ``activation`` [..., in] times ``weight`` [out, in] plus ``bias`` as type ``out``: [..., out].

    ``activation``: float32, whole multiples of ``scale`` (a scalar) up to 255. ``rounded``: of ``weight``, which itself
    only receives the gradient.
    """
    rows = activation.reshape(-1, activation.shape[-1])
    product: Tensor = _IntegerProduct.apply(rows, scale, weight, *rounded, bias, out)  # type: ignore[no-untyped-call]
    return product.view(*activation.shape[:-1], len(weight))


class _ProductContext(AutogradContext, Protocol):
    """``saved_tensors``: the activation's integers and scale, the weight's values, and where its gradient passes."""

    @property
    def saved_tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]: ...


class _IntegerProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _ProductContext,
        activation: Tensor,
        scale: Tensor,
        weight: Tensor,
        integers: Tensor,
        values: Tensor,
        weight_scale: Tensor,
        inside: Tensor | None,
        bias: Tensor | None,
        out: torch.dtype,
    ) -> Tensor:
        # Half precision has no digits for the error of this product: the results are whole numbers.
        steps = torch.mul(activation, 1 / scale, out=torch.empty_like(activation, dtype=integers.dtype))
        ctx.save_for_backward(steps, scale, values, inside)
        product, factor = multiply(steps, integers.t()), scale * weight_scale
        result = torch.empty_like(product, dtype=out)
        if bias is None:
            return torch.mul(product, factor, out=result)
        return torch.addcmul(bias.float(), product, factor, out=result)

    @staticmethod
    def backward(ctx: _ProductContext, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        steps, scale, values, inside = ctx.saved_tensors
        gradient, wanted = gradients[0].to(steps.dtype), ctx.needs_input_grad
        of_weight = multiply(gradient.t(), steps).mul_(scale) if wanted[2] else None
        return (
            multiply(gradient, values) if wanted[0] else None,
            None,
            of_weight if of_weight is None or inside is None else of_weight.mul_(inside),
            *[None] * 4,
            gradient.sum(0, dtype=torch.float32) if wanted[7] else None,
            None,
        )


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """Return the float32 product of two matrices in half precision, whose sums are float32 too."""
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()  # only a GPU has an operator for it


def half_precision(device: torch.device) -> torch.dtype | None:
    """Return the type in which a GPU multiplies integers, or None where products are of float32.

    That is the type of autocast, and float16 without gradients. Training without autocast keeps gradients of float32.
    """
    if device.type != "cuda":
        return None
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        return dtype if dtype in (torch.bfloat16, torch.float16) else None
    return None if torch.is_grad_enabled() else torch.float16
