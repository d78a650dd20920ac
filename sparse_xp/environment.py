"""Where a run happens: device, precision, seeds, trackers, and the noise that libraries make."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sparse_xp.config import Log, Train
from sparse_xp.console import console
from sparse_xp.errors import UserError
from sparse_xp.files import write_text

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(settings: Train, tracker: str, directory: Path) -> Accelerator:
    """Device, precision and tracker."""
    import torch
    from accelerate import Accelerator

    if settings.threads:
        torch.set_num_threads(settings.threads)
    cpu = settings.device == "cpu" or not torch.cuda.is_available()
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=choose_precision(settings.precision, cpu),
        log_with=None if tracker == "none" else tracker,
        project_dir=str(directory),
    )
    if tracker != "none" and not accelerator.log_with:
        raise UserError(
            f"log.tracker={tracker}, but {tracker} is not installed: pip install {tracker}, or write log=none."
        )
    return accelerator


def choose_precision(wanted: str, cpu: bool) -> str:
    """Accelerate's name for ``train.precision``. Raises UserError for fp16 on a CPU.

    ``auto``: fp16 on CUDA. On a CPU bf16 where the processor multiplies it natively, which is both sound (float32
    master weights, no loss scaling) and faster there (``benchmarks/precision.py``); float32 elsewhere.
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
    """fp32, bf16 or fp16."""
    return {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)


def device_name(accelerator: Accelerator) -> str:
    """What the run ran on, with the number of processes or threads."""
    import torch

    if accelerator.device.type == "cuda":
        return f"{torch.cuda.get_device_name(accelerator.device)} x{accelerator.num_processes}"
    return f"cpu, {torch.get_num_threads()} threads"


def hush_libraries() -> None:
    """No bars and warnings of the libraries between our lines: what matters of them is in ours."""
    import datasets
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    if not console.is_terminal:
        datasets.disable_progress_bars()


def start_tracker(accelerator: Accelerator, log: Log, directory: Path, config: dict[str, Any]) -> None:
    """Open the tracker; a resumed W&B run keeps its id, so that it is one run there too."""
    if log.tracker == "none" or not accelerator.is_main_process:
        return
    options: dict[str, Any] = {}
    if log.tracker == "wandb":
        os.environ.setdefault("WANDB_SILENT", "true")
        known = directory / "wandb_id"
        if not known.exists():
            write_text(known, os.urandom(8).hex())
        options["wandb"] = {
            "mode": log.mode, "id": known.read_text(), "name": directory.name, "tags": log.tags,
            "group": log.group or directory.parent.name,
            "dir": str(directory), **({"resume": "allow"} if log.mode == "online" else {}),
        }  # fmt: skip
    flat = {"config": yaml.safe_dump(config)} if log.tracker == "tensorboard" else config
    accelerator.init_trackers(log.project, config=flat, init_kwargs=options)
