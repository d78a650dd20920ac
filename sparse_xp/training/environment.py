"""Device, processes and determinism of a run; ``precision`` has its precision."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from sparse_xp.console import console, say
from sparse_xp.errors import UserError
from sparse_xp.settings import Train
from sparse_xp.training.precision import Numerics, check_computed, choose_precision, describe

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

#: how long a process waits for another. Rank 0 alone fetches data, stores the teacher's logits and measures latency;
#: by default NCCL ends the job after ten minutes of that.
PATIENCE = timedelta(hours=24)

#: the environment variable that makes cuBLAS deterministic, and the values that do
CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")


@contextmanager
def devices(settings: Train, began: Numerics | None = None) -> Iterator[Accelerator]:
    """Yield ``make_accelerator``, and leave nothing of it behind: the next run of a sweep may need other devices."""
    import torch
    from accelerate.state import AcceleratorState, GradientState

    current = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    try:
        accelerator = make_accelerator(settings, began)
        try:
            yield accelerator
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()
            accelerator.free_memory()
            # The next run has the same processes. Connected anew, they would find the addresses of the old connections.
            atexit.unregister(end_processes)
            atexit.register(end_processes)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        if torch.cuda.is_initialized():
            torch.cuda.set_device(current or 0)


def end_processes() -> None:
    """End the connections between the processes of a run, if there are any."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def make_accelerator(settings: Train, began: Numerics | None = None) -> Accelerator:
    """Return an Accelerator with the device and precision of the configuration, and print which ``auto`` has chosen.

    ``began``: the numerics of the run that is to be continued. Raises UserError.
    """
    import torch
    from accelerate import Accelerator, PartialState
    from accelerate.utils import DistributedType

    check_device(settings)
    device = find_device(settings.device)
    precision, reason = choose_precision(settings.precision, device, began)
    state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    if state.distributed_type == DistributedType.NO:
        state.device = device  # Accelerate would take the first of its own list
        if device.index is not None:
            torch.get_device_module(device.type).set_device(device)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision.replace("fp32", "no"))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    # Only rank 0 prints.
    console.quiet = not accelerator.is_main_process
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise UserError(
            f"{accelerator.distributed_type.value} shards weights, which masks, checkpoints and export do not support. "
            "An encoder fits on one device: use DDP (accelerate launch --multi_gpu, or torchrun)."
        )
    if reason:
        say(f"precision: {precision}, {reason}")
    return accelerator


def check_device(settings: Train) -> None:
    """Raise UserError for a device that is not there, or does not compute the precision that is asked for."""
    check_one_device_each(settings.device)
    device = find_device(settings.device)
    if settings.precision != "auto":
        check_computed(settings.precision, device)


def check_one_device_each(wanted: str) -> None:
    """Raise UserError for a device that several processes cannot train on together."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    kind, _, number = wanted.partition(":")
    if processes > 1 and number:
        raise UserError(
            f"train.device={wanted}: each of the {processes} processes needs a device of its own. Write "
            f"train.device={kind}, and choose the devices with CUDA_VISIBLE_DEVICES (of Intel's: ZE_AFFINITY_MASK)."
        )
    if processes > 1 and kind == "mps":
        raise UserError(f"train.device=mps is one device, and there are {processes} processes. Start one.")


def find_device(wanted: str) -> torch.device:
    """Return the device that ``train.device`` names. Raises UserError, with those that are there, if it is not."""
    import torch
    from accelerate.utils import parse_flag_from_env

    if wanted == "auto":
        cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()  # accelerate launch --cpu
        return torch.device("cpu" if cpu else "cuda")
    present = devices_here()
    if wanted not in present and f"{wanted}:0" not in present:
        raise UserError(
            f"train.device={wanted}: PyTorch {torch.__version__} finds no such device here. It finds "
            f"{', '.join(present)}."
        )
    return torch.device(wanted)


def devices_here() -> list[str]:
    """Return the names of the devices that PyTorch can use: ``cpu``, ``cuda:0``, ``xpu:0``, ``mps``."""
    import torch

    names = ["cpu"]
    for kind, module in (("cuda", torch.cuda), ("xpu", torch.xpu)):
        names += [f"{kind}:{number}" for number in range(module.device_count() if module.is_available() else 0)]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


@contextmanager
def determinism(settings: Train) -> Iterator[None]:
    """Compute with deterministic algorithms in the block if ``train.deterministic``, then as before.

    Of the fused attention kernels, flash and memory-efficient have a deterministic backward pass that PyTorch takes
    then, and cuDNN's is left out. cuBLAS reads its variable when it starts: enter the block before the run computes.
    """
    import torch

    if not settings.deterministic:
        yield
        return
    cudnn, variable = torch.backends.cudnn, os.environ.get(CUBLAS_WORKSPACE)
    enabled = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.deterministic, cudnn.benchmark
    try:
        if variable not in DETERMINISTIC_WORKSPACES:
            os.environ[CUBLAS_WORKSPACE] = DETERMINISTIC_WORKSPACES[0]
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        torch.use_deterministic_algorithms(enabled[0], warn_only=enabled[1])
        cudnn.deterministic, cudnn.benchmark = flags
        if variable is None:
            os.environ.pop(CUBLAS_WORKSPACE, None)
        else:
            os.environ[CUBLAS_WORKSPACE] = variable


def seed_rank(seed: int, rank: int) -> None:
    """Seed all random number generators of a process anew, so that each rank draws its own dropout.

    Rank 0 goes on with those that it has: one process alone draws the same numbers.
    """
    from accelerate.utils import set_seed

    if rank:
        set_seed((seed + 1_000_003 * rank) % 2**32)


def precision_name(accelerator: Accelerator) -> str:
    """Return fp32, bf16 or fp16."""
    precision = str(accelerator.mixed_precision)
    return "fp32" if precision == "no" else precision


def device_name(accelerator: Accelerator) -> str:
    """Return the name of the device, with the number of processes or threads."""
    import torch

    if accelerator.device.type in ("cuda", "xpu"):
        return f"{describe(accelerator.device)} x{accelerator.num_processes}"
    if accelerator.device.type == "mps":
        return f"mps ({describe(accelerator.device)})"
    return f"cpu, {torch.get_num_threads()} threads"
