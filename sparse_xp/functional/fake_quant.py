"""The arithmetic of an integer engine in floating point: scales, rounding with a straight-through gradient, observers.

Weights are signed and symmetric, so that a zero stays exactly zero and masks survive. Activations are unsigned and
asymmetric. onnxruntime and OpenVINO have fast kernels for this form. Jacob et al. 2018, arXiv:1712.05877.

The modules that compute with these functions are in ``quant_modules``, their file format in ``quant_file``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: EMA weight of a new batch in the range of an activation, as in SparseML. The first 1 / EMA_WEIGHT batches are
#: averaged equally, so that the first one does not dominate.
EMA_WEIGHT = 0.01


def weight_scale(weight: Tensor, bits: int = 8, per_channel: bool = True) -> Tensor:
    """Return the quantization scale of ``weight`` [out, in], float32: [out] if ``per_channel``, or a scalar.

    The largest magnitude becomes the largest integer, 2^(bits-1) - 1. A scale is never 0.
    """
    low, high = torch.aminmax(weight.detach(), dim=1) if per_channel else torch.aminmax(weight.detach())
    highest = torch.maximum(-low, high).float()  # no copy of the matrix: this happens at every step
    scale: Tensor = highest / (2 ** (bits - 1) - 1)
    return scale.clamp_min(torch.finfo(torch.float32).tiny)


def fake_quantize_weight(weight: Tensor, scale: Tensor, bits: int = 8) -> Tensor:
    """Round ``weight`` to whole multiples of ``scale`` within plus and minus 2^(bits-1) - 1.

    ``scale``: a scalar, or one value for each row. The gradient is that of the identity inside the range and 0 outside.
    """
    limit = 2 ** (bits - 1) - 1
    if scale.ndim:
        zeros = torch.zeros(len(scale), dtype=torch.int32, device=scale.device)
        return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -limit, limit)
    zero = torch.zeros((), dtype=torch.int32, device=scale.device)
    return torch.fake_quantize_per_tensor_affine(weight, scale, zero, -limit, limit)


def quantize_weight(weight: Tensor, scale: Tensor, bits: int = 8) -> Tensor:
    """Return ``fake_quantize_weight`` divided by ``scale``: int8 of the shape of ``weight``."""
    limit = 2 ** (bits - 1) - 1
    per_row = scale.reshape(-1, *[1] * (weight.ndim - 1))
    # Times the inverse, as fake_quantize computes it: a division would now and then round to the other side.
    return (weight.detach() * (1 / per_row)).round().clamp(-limit, limit).to(torch.int8)


def activation_scale(low: Tensor, high: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Return scale (float32) and zero point (int32) for values from ``low`` to ``high``, all scalars.

    The range is widened to contain 0, so that padding and ReLU outputs are exact.
    """
    low, high = low.float().clamp_max(0.0), high.float().clamp_min(0.0)
    top = 2**bits - 1
    scale = ((high - low) / top).clamp_min(torch.finfo(torch.float32).tiny)
    return scale, (-low / scale).round().clamp(0, top).to(torch.int32)


def fake_quantize_activation(values: Tensor, scale: Tensor, zero_point: Tensor, bits: int = 8) -> Tensor:
    """Round ``values`` (any shape) to the grid of unsigned integers; the gradient as of ``fake_quantize_weight``."""
    return torch.fake_quantize_per_tensor_affine(values.float(), scale, zero_point, 0, 2**bits - 1)


@dataclass
class MinMaxObserver:
    """Moving-average minimum and maximum of an activation; None until the first of ``count`` batches."""

    low: Tensor | None = None
    high: Tensor | None = None
    count: int = 0

    def update(self, values: Tensor) -> None:
        """Average the extremes of a batch (any shape) into the range."""
        low, high = (extreme.float() for extreme in torch.aminmax(values.detach()))
        self.count += 1
        share = max(EMA_WEIGHT, 1 / self.count)
        self.low = low if self.low is None else self.low + share * (low - self.low)
        self.high = high if self.high is None else self.high + share * (high - self.high)
