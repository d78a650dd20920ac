"""Save and restore the complete state of a run, so that an interrupted run continues exactly.

A checkpoint is a directory ``checkpoints/step-N``, renamed into place once it is complete on disk. Its checksums are
verified before it is read. It holds plain tensors and numbers and is read with ``weights_only``, so it cannot run code.
"""

from __future__ import annotations

import os
import random
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from sparse_xp.console import say
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import find_damage
from sparse_xp.files.directories import atomic_directory, restore_interrupted
from sparse_xp.files.ownership import free_name, is_own, remove_own
from sparse_xp.functional.model_calls import moved
from sparse_xp.run_directory import CHECKPOINTS, checkpoints
from sparse_xp.training.environment import precision_name
from sparse_xp.training.precision import Numerics

if TYPE_CHECKING:
    from sparse_xp.training.state import Run

BEST = "best/model.safetensors"


def save(run: Run) -> None:
    """Write ``checkpoints/step-N``, and remove the oldest beyond ``train.keep_states``."""
    run.modifier_list.check(run)
    run.accelerator.wait_for_everyone()
    folder = run.directory / CHECKPOINTS
    # Every process draws its own dropout, so the random state of every process is saved.
    states = gather_random_states(run)
    run.progress.lines = run.history.lines
    run.history.sync()  # the checkpoint records the number of its lines
    if run.accelerator.is_main_process:
        scaler = run.accelerator.scaler
        state = {
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "recipe": run.modifier_list.state_dict(),
            "progress": asdict(run.progress),
            "scaler": scaler.state_dict() if scaler else {},
            "random": states,
            "data": run.origin,
            "precision": precision_name(run.accelerator),
            "device": run.accelerator.device.type,
        }
        with atomic_directory(folder / f"step-{run.progress.step:08d}", "checkpoint") as draft:
            torch.save(state, draft / "state.pt")
        # Checkpoints of later steps neither count nor are removed.
        up_to_here = [path for path in checkpoints(folder) if path.name <= f"step-{run.progress.step:08d}"]
        for old in [path for path in up_to_here if is_own(path, "checkpoint")][: -run.train.keep_states]:
            remove_own(old, "checkpoint")
    run.accelerator.wait_for_everyone()


def restore(run: Run) -> bool:
    """Load the latest undamaged checkpoint; return whether there is one. Raises UserError if all are damaged."""
    with run.accelerator.main_process_first():  # rank 0 renames what is damaged
        path = latest(run.directory / CHECKPOINTS)
    if path is None:
        return False
    accelerator = run.accelerator
    state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    if state.get("data", run.origin) != run.origin:
        raise UserError(
            f"The rows differ from those that {run.directory} was started with. Use the same data, or move the "
            "directory away to start again."
        )
    recipe = moved(state["recipe"], accelerator.device)
    run.modifier_list.restore_shapes(run, recipe)
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.modifier_list.load_state_dict(recipe)
    for name, value in state["progress"].items():
        setattr(run.progress, name, value)
    if accelerator.scaler and state["scaler"]:  # there is none in a checkpoint of another precision
        accelerator.scaler.load_state_dict(state["scaler"])
    if run.progress.best:
        best_weights(run)  # fail now if they are damaged, not after hours of training
    # A run may resume with more processes than it had; the additional ones keep the seed of their rank.
    if accelerator.process_index < len(state["random"]):
        set_random_state(state["random"][accelerator.process_index], accelerator.device)
    kind = accelerator.device.type
    if state.get("device", kind) != kind:
        say(f"the checkpoint was written on {state['device']}: on {kind} the run continues, but not bit for bit")
    return True


def recorded_numerics(directory: Path) -> Numerics | None:
    """Return precision and device of the run to be continued in ``directory``; None if there is none, or none is known.

    They have to be known before a device is chosen. Nothing is renamed, and of tensors nothing is read.
    """
    path = next((path for path in reversed(checkpoints(directory / CHECKPOINTS)) if not find_damage(path)), None)
    if path is None:
        return None
    state = torch.load(path / "state.pt", map_location="cpu", mmap=True, weights_only=True)
    if "precision" in state:
        return Numerics(state["precision"], state["device"])
    # A checkpoint of an earlier version: only fp16 has a scaler.
    return Numerics("fp16", "cuda") if state["scaler"] else None


def latest(folder: Path) -> Path | None:
    """Return the latest undamaged checkpoint, None if there is no checkpoint.

    Damaged checkpoints after it are renamed, because the run will write their names again. Raises UserError if all are
    damaged.
    """
    damaged: dict[Path, str] = {}  # with the reason
    for path in reversed(checkpoints(folder)):
        if reason := find_damage(path):
            damaged[path] = reason
            continue
        for skipped, reason in damaged.items():
            renamed = free_name(skipped, "damaged")
            os.rename(skipped, renamed)
            say(f"{skipped} is damaged ({reason}): the one before it is used, and the damaged one is now {renamed}")
        return path
    for path, reason in damaged.items():
        raise UserError(
            f"{path} is damaged ({reason}), and so are all others. Move {folder} away: the same command starts the run "
            "again."
        )
    return None


def save_best(run: Run) -> None:
    """Save the weights and the state of the modifiers as the best so far."""
    run.modifier_list.check(run)
    with atomic_directory((run.directory / BEST).parent, "best") as draft:
        save_file({k: v.contiguous() for k, v in unshared(run.model).items()}, draft / Path(BEST).name)
        torch.save(run.modifier_list.state_dict(), draft / "recipe.pt")


def load_best(run: Run) -> None:
    """Load the best weights and the modifiers' state that belongs to them. Raises UserError if they are damaged."""
    weights = best_weights(run)
    run.model.load_state_dict(weights, strict=False)  # tied weights are stored once
    state = torch.load((run.directory / BEST).parent / "recipe.pt", map_location="cpu", weights_only=True)
    run.modifier_list.load_state_dict(moved(state, run.device))


def best_weights(run: Run) -> dict[str, torch.Tensor]:
    """Return the best weights by name. Raises UserError if they are damaged or those of a different model."""
    path = restore_interrupted((run.directory / BEST).parent)
    damage, weights = find_damage(path), {}
    if not damage:
        weights = load_file(run.directory / BEST)
        if differing := sorted(weights.keys() ^ unshared(run.model).keys()):
            damage = f"{BEST} is of a different model: {differing[0]}"
    if damage:
        raise UserError(
            f"{path} is damaged ({damage}). Move {run.directory} away: the same command makes the run again."
        )
    return weights


def unshared(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters by name, tied ones once (safetensors refuses to write the same memory twice)."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def gather_random_states(run: Run) -> list[dict[str, Any]]:
    """Return the random state of every process, ordered by rank."""
    from accelerate.utils import gather_object

    states: list[dict[str, Any]] = gather_object([random_state(run.accelerator.device)])
    return states


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of this process's random number generators, as tensors and plain values.

    ``device``: of the run, whose own generator is among them. Other devices that are visible have no part in the run.
    """
    kind, keys, *rest = np.random.get_state()
    version, numbers, gauss = random.getstate()
    own = {} if device.type == "cpu" else {"kind": device.type, "state": device_random_state(device)}
    return {
        "torch": torch.get_rng_state(),
        "device": own,
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": [version, list(numbers), gauss],
    }


def device_random_state(device: torch.device) -> torch.Tensor:
    """Return the state of the random number generator of ``device``, which is not the CPU."""
    module = torch.get_device_module(device.type)
    state: torch.Tensor = module.get_rng_state(*device_argument(device))
    return state


def device_argument(device: torch.device) -> tuple[torch.device, ...]:
    """Return what PyTorch's functions for the generator of ``device`` take: there is one MPS device, without a name."""
    return () if device.type == "mps" else (device,)


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore what ``random_state`` returned, on the ``device`` of the run."""
    torch.set_rng_state(state["torch"].cpu())
    if (own := saved_device_state(state, device)) is not None:
        torch.get_device_module(device.type).set_rng_state(own.cpu(), *device_argument(device))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def saved_device_state(state: dict[str, Any], device: torch.device) -> torch.Tensor | None:
    """Return the state that ``random_state`` has saved for a device of this type; None if it has none."""
    if "device" in state:
        return state["device"].get("state") if state["device"].get("kind") == device.type else None
    visible: list[torch.Tensor] = state.get("cuda", [])  # earlier versions: those of all visible GPUs, in order
    return visible[min(device.index or 0, len(visible) - 1)] if visible and device.type == "cuda" else None
