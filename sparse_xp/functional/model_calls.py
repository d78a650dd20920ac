"""How a model is called: a mapping of keywords for transformers, tensors for other modules; without autocast."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

#: a batch of any loop, or the inputs or outputs of any model: a mapping, a sequence or a tensor
Batch = Any


def call_model(model: nn.Module, inputs: Batch) -> Batch:
    """Return the outputs of a model for a mapping of keywords, a sequence of arguments, or one argument.

    A model of sentence-transformers takes the mapping as its one argument.
    """
    if isinstance(inputs, Mapping):
        return model(**inputs) if takes_keywords(model, inputs) else model(dict(inputs))
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def takes_keywords(model: nn.Module, inputs: Mapping[str, Any]) -> bool:
    """Return whether ``forward`` takes inputs as keywords: its first parameter is one of them, or has a default."""
    first = next(iter(inspect.signature(model.forward).parameters.values()), None)
    required = first is not None and first.kind is first.POSITIONAL_OR_KEYWORD and first.default is first.empty
    return not required or first is None or first.name in inputs


def attention_mask(batch: object) -> Tensor | None:
    """Return the mask of a batch [rows, tokens], True for tokens that are not padding, or None if it has none."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``.

    From pinned host memory a GPU copies by itself. From other memory the copy waits for all that the GPU was given.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with every tensor in it on ``device``."""
    if isinstance(batch, Tensor):
        return sent(batch, device)
    if isinstance(batch, Mapping):
        return {name: moved(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        values = [moved(value, device) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    return batch


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which autocast is off, for what half precision would round away."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
