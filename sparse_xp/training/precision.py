"""The precision of a run: what its device computes, and what ``train.precision=auto`` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparse_xp.errors import UserError

if TYPE_CHECKING:
    import torch

#: the compute capability from which on NVIDIA GPUs compute bf16 natively: Ampere
NATIVE_BF16 = (8, 0)


@dataclass(frozen=True)
class Numerics:
    """What the numbers of a run depend on: ``precision`` (fp32, bf16, fp16) and the type of its ``device``."""

    precision: str
    device: str


def choose_precision(wanted: str, device: torch.device, began: Numerics | None = None) -> tuple[str, str]:
    """Return the precision of ``train.precision``, and the reason why ``auto`` is this one.

    ``began``: ``auto`` continues a run in the precision in which it began. Raises UserError for a precision that the
    device does not compute.
    """
    if wanted != "auto":
        check_computed(wanted, device)
        return wanted, ""
    if began is None:
        return native_precision(device)
    if not computes(began.precision, device):
        raise UserError(
            f"The run began in {began.precision} on {began.device}, and {describe(device)} does not compute "
            f"{began.precision}. Continue it on {began.device} (train.device=auto takes it where it is), or give this "
            f"one a directory of its own (hydra.run.dir=): it would be in {native_precision(device)[0]}."
        )
    return began.precision, f"in which the run began on {began.device}"


def check_computed(precision: str, device: torch.device) -> None:
    """Raise UserError for a ``train.precision`` that ``device`` does not compute."""
    if computes(precision, device):
        return
    if device.type == "cpu":
        raise UserError(f"train.precision={precision} needs a GPU. On a CPU: train.precision=auto, fp32 or bf16.")
    raise UserError(
        f"train.precision={precision}: {describe(device)} does not compute {precision}. Write train.precision=auto, "
        "fp16 or fp32."
    )


def native_precision(device: torch.device) -> tuple[str, str]:
    """Return the precision that is fastest on ``device`` with the range of float32, or fp16 on a GPU, and why.

    bf16 needs no loss scaling. On a CPU with native bf16 it is faster too (``benchmarks/precision.py``).
    """
    import torch

    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        has = f"compute capability {'.'.join(map(str, capability))}"
        if capability >= NATIVE_BF16:
            return "bf16", f"which {describe(device)} computes natively ({has}); fp16: train.precision=fp16"
        return "fp16", f"as {describe(device)} does not compute bf16 natively ({has}; 8.0 does)"
    on_cpu = device.type == "cpu"
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported() if on_cpu else computes("bf16", device)
    if native:
        return "bf16", f"which {describe(device)} computes natively"
    return "fp32", f"as {describe(device)} does not compute bf16 natively"


def computes(precision: str, device: torch.device) -> bool:
    """Return whether PyTorch trains in ``precision`` on ``device``, natively or not."""
    import torch

    if precision == "fp16":
        return device.type != "cpu"  # its gradients need a scaler, which Accelerate has for other devices alone
    if precision == "bf16" and device.type in ("cuda", "xpu"):
        return bool(torch.get_device_module(device.type).is_bf16_supported())
    return precision == "fp32" or device.type == "cpu" or bool(torch.backends.mps.is_macos_or_newer(14, 0))


def describe(device: torch.device) -> str:
    """Return the name of the device's model."""
    import torch

    if device.type in ("cuda", "xpu"):
        return str(torch.get_device_module(device.type).get_device_name(device))
    return torch.backends.mps.get_name() if device.type == "mps" else "this CPU"
