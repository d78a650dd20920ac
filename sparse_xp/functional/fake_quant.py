"""The arithmetic of an integer engine in floating point: scales, rounding with a straight-through gradient, observers.

Weights are signed and symmetric, so that a zero stays exactly zero and masks survive. Activations are unsigned and
asymmetric. onnxruntime and OpenVINO have fast kernels for this form. Jacob et al. 2018, arXiv:1712.05877.

The modules that compute with these functions are in ``quant_modules``, their file format in ``quant_file``. Nothing
here waits for a GPU, and each function launches few kernels: modules call them in every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

#: EMA weight of a new batch in the range of an activation, as in SparseML. The first 1 / EMA_WEIGHT batches are
#: averaged equally, so that the first one does not dominate.
EMA_WEIGHT = 0.01


def weight_scale(weight: Tensor, bits: int = 8, per_channel: bool = True) -> Tensor:
    """Return the quantization scale of ``weight`` [out, in], float32: [out] if ``per_channel``, or a scalar.

    The largest magnitude becomes the largest integer, 2^(bits-1) - 1. A scale is never 0.
    """
    weight = weight.detach()
    if per_channel:
        highest = weight.abs().amax(1).float()
    else:
        low, high = torch.aminmax(weight)  # without a copy: this is a whole vocabulary
        highest = torch.maximum(-low, high).float()
    scale: Tensor = highest / (2 ** (bits - 1) - 1)
    return scale.clamp_min(torch.finfo(torch.float32).tiny)


def weight_steps(weight: Tensor, scale: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Return ``weight`` in steps of ``scale``, rounded, as float32: without limits, and within 2^(bits-1) - 1."""
    limit = 2 ** (bits - 1) - 1
    # Times the inverse, as PyTorch's own operators compute it: a division would now and then round to the other side.
    steps = (weight.detach().float() * (1 / per_row(scale, weight))).round_()
    return steps, steps.clamp(-limit, limit)


def per_row(scale: Tensor, weight: Tensor) -> Tensor:
    """Return ``scale``, a scalar or one value for each row of ``weight``, in a shape that multiplies ``weight``."""
    return scale.reshape(-1, *[1] * (weight.ndim - 1)) if scale.ndim else scale


def rounded_weight(
    weight: Tensor, scale: Tensor, bits: int = 8, *, fitting: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return ``weight`` in whole multiples of ``scale``, without gradient, and where its gradient passes.

    That is everywhere, None, if the scale is ``fitting``: nothing exceeds it.
    """
    steps, limited = weight_steps(weight, scale, bits)
    inside = None if fitting else steps == limited
    return limited.mul_(per_row(scale, weight)), inside


def fake_quantize_weight(weight: Tensor, scale: Tensor, bits: int = 8, *, fitting: bool = False) -> Tensor:
    """Round ``weight`` to whole multiples of ``scale`` within plus and minus 2^(bits-1) - 1.

    ``scale``: a scalar, or one value for each row; ``fitting`` if nothing exceeds it. The gradient is that of the
    identity inside the range and 0 outside.
    """
    return straight_through(weight, *rounded_weight(weight, scale, bits, fitting=fitting))


def quantize_weight(weight: Tensor, scale: Tensor, bits: int = 8) -> Tensor:
    """Return ``fake_quantize_weight`` divided by ``scale``: int8 of the shape of ``weight``."""
    return weight_steps(weight, scale, bits)[1].to(torch.int8)


def activation_scale(low: Tensor, high: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Return scale (float32) and zero point (int32) for values from ``low`` to ``high``, all scalars.

    The range is widened to contain 0, so that padding and ReLU outputs are exact.
    """
    low, high = low.float().clamp_max(0.0), high.float().clamp_min(0.0)
    top = 2**bits - 1
    scale = ((high - low) / top).clamp_min(torch.finfo(torch.float32).tiny)
    return scale, (-low / scale).round().clamp(0, top).to(torch.int32)


def fake_quantize_activation(values: Tensor, scale: Tensor, zero_point: Tensor, bits: int = 8) -> Tensor:
    """Round ``values`` (any shape) to the grid of unsigned integers; the gradient as of ``fake_quantize_weight``.

    All ways give the same numbers. PyTorch's operator is one kernel on a GPU; on a CPU it is ten times slower than the
    vectorized passes of ``_RoundOnCpu``, and a compiler cannot look into it.
    """
    values, top = values.float(), 2**bits - 1
    if torch.compiler.is_compiling():
        low = -zero_point.float()
        steps = (values.detach() * (1 / scale)).round()
        limited = torch.minimum(torch.maximum(steps, low), low + top)
        return limited * scale + (values - values.detach()) * (steps == limited)
    if values.is_cpu:
        low_step = -float(zero_point)
        rounded: Tensor = _RoundOnCpu.apply(values, scale, low_step, low_step + top)  # type: ignore[no-untyped-call]
        return rounded
    return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, 0, top)


def straight_through(values: Tensor, rounded: Tensor, inside: Tensor | None) -> Tensor:
    """Return ``rounded`` with the gradient of ``values`` where ``inside`` is true, everywhere if it is None."""
    passed: Tensor = _StraightThrough.apply(values, rounded, inside)  # type: ignore[no-untyped-call]
    return passed


class AutogradContext(Protocol):
    """The autograd context, which PyTorch passes from forward to backward."""

    needs_input_grad: tuple[bool, ...]

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]: ...

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: AutogradContext, values: Tensor, rounded: Tensor, inside: Tensor | None) -> Tensor:
        ctx.save_for_backward(inside)
        return rounded.detach()

    @staticmethod
    def backward(ctx: AutogradContext, *gradients: Tensor) -> tuple[Tensor, None, None]:
        [gradient], [inside] = gradients, ctx.saved_tensors
        return gradient if inside is None else gradient * inside, None, None


class _RoundContext(AutogradContext, Protocol):
    """``ends``, our own attribute: the limits between which the gradient passes, in steps."""

    ends: tuple[float, float]


class _RoundOnCpu(torch.autograd.Function):
    """Round to steps of ``scale`` from ``low`` to ``high`` steps. Every pass is one that the CPU has vectorized."""

    @staticmethod
    def forward(ctx: _RoundContext, values: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
        steps = (values * (1 / scale)).round_()
        if not ctx.needs_input_grad[0]:
            return steps.clamp_(low, high).mul_(scale)
        ctx.save_for_backward(steps)
        ctx.ends = low - 0.5, high + 0.5  # steps are whole numbers
        return steps.clamp(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: _RoundContext, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        # That is the gradient where the steps lie between the ends, and 0 elsewhere.
        return torch.ops.aten.hardtanh_backward(*gradients, *ctx.saved_tensors, *ctx.ends), None, None, None


@dataclass
class MinMaxObserver:
    """Moving-average minimum and maximum of an activation; None until the first of ``count`` batches.

    ``compiled``: a scalar, the batches beyond ``count`` that compiled code has seen. ``grids``: scale and zero point of
    the latest range, by device and bits; ``grids_of``: that range.
    """

    low: Tensor | None = None
    high: Tensor | None = None
    count: int = 0
    compiled: Tensor | None = field(default=None, compare=False, repr=False)
    grids: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = field(
        default_factory=dict, compare=False, repr=False
    )
    grids_of: tuple[Tensor | None, Tensor | None] = field(default=(None, None), compare=False, repr=False)

    def update(self, values: Tensor) -> None:
        """Average the extremes of a batch (any shape) into the range."""
        batch = [extreme.float() for extreme in torch.aminmax(values.detach())]
        share = self.next_share(values.device)
        if self.low is None or self.high is None:
            self.low, self.high = batch
            return
        known = [self.low, self.high]  # both ends in one kernel each time
        self.low, self.high = torch._foreach_add(known, torch._foreach_mul(torch._foreach_sub(batch, known), share))

    def next_share(self, device: torch.device) -> float | Tensor:
        """Count a batch, and return its weight in the range, a number or a scalar tensor."""
        if torch.compiler.is_compiling():
            # A tensor: an integer that changes would be compiled anew in every step.
            self.compiled = (torch.zeros((), device=device) if self.compiled is None else self.compiled) + 1
            return (1 / (self.count + self.compiled)).clamp_min(EMA_WEIGHT)
        self.count, self.compiled = self.batches + 1, None
        return max(EMA_WEIGHT, 1 / self.count)

    @property
    def batches(self) -> int:
        """The number of batches, those of compiled code included."""
        return self.count if self.compiled is None else self.count + int(self.compiled)

    def grid(self, device: torch.device, bits: int) -> tuple[Tensor, Tensor] | None:
        """Return scale and zero point of the range on ``device``, or None if nothing was observed yet.

        They are computed once for each range: several modules read one activation, and evaluation changes no range.
        """
        if self.low is None or self.high is None:
            return None
        if torch.compiler.is_compiling():  # a compiler finds by itself what is computed twice
            return activation_scale(self.low.to(device), self.high.to(device), bits)
        if self.grids_of[0] is not self.low or self.grids_of[1] is not self.high:
            self.grids, self.grids_of = {}, (self.low, self.high)
        if (device, bits) not in self.grids:
            # Observers are no buffers: when a model moves to the CPU for export they stay where they were.
            self.grids[device, bits] = activation_scale(self.low.to(device), self.high.to(device), bits)
        return self.grids[device, bits]
