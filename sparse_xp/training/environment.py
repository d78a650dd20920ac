"""Device and precision of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparse_xp.console import console
from sparse_xp.errors import UserError
from sparse_xp.settings import Train

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(settings: Train) -> Accelerator:
    """Return an Accelerator with the device and precision of the configuration. Raises UserError."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

    if settings.threads:
        torch.set_num_threads(settings.threads)
    cpu = settings.device == "cpu" or not torch.cuda.is_available()
    accelerator = Accelerator(cpu=cpu, mixed_precision=choose_precision(settings.precision, cpu))
    # Only rank 0 prints.
    console.quiet = not accelerator.is_main_process
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise UserError(
            f"{accelerator.distributed_type.value} shards weights, which masks, checkpoints and export do not support. "
            "An encoder fits on one device: use DDP (accelerate launch --multi_gpu, or torchrun)."
        )
    return accelerator


def choose_precision(wanted: str, cpu: bool) -> str:
    """Return Accelerate's name for ``train.precision``. Raises UserError for fp16 on a CPU.

    ``wanted``: ``auto`` is fp16 on CUDA. On a CPU it is bf16 if the processor multiplies bf16 natively, which is
    faster (``benchmarks/precision.py``) and needs no loss scaling because the weights stay in float32; otherwise
    float32. ``cpu``: whether the run is on a CPU.
    """
    import torch

    if wanted == "auto":
        if not cpu:
            return "fp16"
        return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "no"
    if wanted == "fp16" and cpu:
        raise UserError("train.precision=fp16 needs a GPU. On a CPU: train.precision=auto, fp32 or bf16.")
    return {"fp32": "no"}.get(wanted, wanted)


def precision_name(accelerator: Accelerator) -> str:
    """Return fp32, bf16 or fp16."""
    precision = str(accelerator.mixed_precision)
    return "fp32" if precision == "no" else precision


def device_name(accelerator: Accelerator) -> str:
    """Return the name of the device, with the number of processes or threads."""
    import torch

    if accelerator.device.type == "cuda":
        return f"{torch.cuda.get_device_name(accelerator.device)} x{accelerator.num_processes}"
    return f"cpu, {torch.get_num_threads()} threads"
