"""Device, precision and trackers of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sparse_xp.console import console
from sparse_xp.errors import UserError
from sparse_xp.files.writing import write_text
from sparse_xp.settings import Log, Train

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(settings: Train, tracker: str, directory: Path) -> Accelerator:
    """Return an Accelerator with the device, precision and tracker of the configuration. Raises UserError."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

    if settings.threads:
        torch.set_num_threads(settings.threads)
    cpu = settings.device == "cpu" or not torch.cuda.is_available()
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=choose_precision(settings.precision, cpu),
        log_with=None if tracker == "none" else tracker,
        project_dir=str(directory),
    )
    # Only rank 0 prints.
    console.quiet = not accelerator.is_main_process
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise UserError(
            f"{accelerator.distributed_type.value} shards weights, which masks, checkpoints and export do not support. "
            "An encoder fits on one device: use DDP (accelerate launch --multi_gpu, or torchrun)."
        )
    if tracker != "none" and not accelerator.log_with:
        raise UserError(
            f"log.tracker={tracker}, but {tracker} is not installed: pip install {tracker}, or write log=none."
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


def start_tracker(accelerator: Accelerator, log: Log, directory: Path, config: dict[str, Any]) -> None:
    """Open the tracker. A resumed W&B run keeps its id, so that W&B shows one run."""
    if log.tracker == "none" or not accelerator.is_main_process:
        return
    options: dict[str, Any] = {}
    group = log.group or directory.parent.name
    if log.tracker == "wandb":
        os.environ.setdefault("WANDB_SILENT", "true")
        id_file = directory / "wandb_id"
        if agent_id := os.environ.get("WANDB_RUN_ID"):  # a W&B agent has named the run
            write_text(id_file, agent_id)
        elif not id_file.exists():
            write_text(id_file, os.urandom(8).hex())
        options["wandb"] = {
            "mode": log.mode, "id": id_file.read_text(), "name": directory.name, "tags": log.tags, "group": group,
            "dir": str(directory), **({"resume": "allow"} if log.mode == "online" else {}),
        }  # fmt: skip
    elif log.tracker == "mlflow":
        # By default one store for all runs of the sweep, in its directory.
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{directory.parent.resolve()}/mlflow.db")
        options["mlflow"] = {"run_name": directory.name, "tags": {"group": group, **dict.fromkeys(log.tags, "")}}
    elif log.tracker == "trackio":
        os.environ.setdefault("TRACKIO_DIR", str(directory.parent.resolve() / "trackio"))
        options["trackio"] = {"name": directory.name, "group": group, "resume": "allow", "embed": False}
    text = log.tracker in ("tensorboard", "mlflow")  # they take plain values only
    accelerator.init_trackers(
        log.project, config={"config": yaml.safe_dump(config)} if text else config, init_kwargs=options
    )


def log_artifacts(accelerator: Accelerator, log: Log, directory: Path, line: dict[str, str]) -> None:
    """Log the row of the table to W&B; when online, also the deployment folder and the report."""
    if log.tracker != "wandb":
        return
    import wandb

    run = accelerator.get_tracker("wandb", unwrap=True)
    run.log({"result": wandb.Table(columns=list(line), data=[list(line.values())])})
    if log.artifacts and log.mode == "online":
        artifact = wandb.Artifact(f"deployment-{run.id}", type="model")
        artifact.add_dir(str(directory / "deployment"))
        artifact.add_file(str(directory / "report.md"))
        run.log_artifact(artifact)
