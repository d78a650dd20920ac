"""A trained model of the user's program: which it is, and how it is computed on the CPU without being changed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sparse_xp.errors import UserError
from sparse_xp.functional.unwrapping import check_own_weights, check_values, unwrap
from sparse_xp.models.tokenizers import check_vocabulary


def transformers_model(model: nn.Module) -> PreTrainedModel:
    """Return the model of transformers that ``model`` is, without ``torch.compile`` and DDP around it.

    Raises UserError for anything else, and names the model of transformers inside of it if there is one.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model: expected a model of transformers, not {type(model).__name__}.")
    inner = unwrap(model)
    if isinstance(inner, PreTrainedModel):
        if getattr(inner, "is_quantized", False):
            raise UserError(
                f"model: {type(inner).__name__} is quantized by another library. Give one in floating point, or one "
                "that sparse_xp quantized."
            )
        check_values(inner)
        check_own_weights(inner)
        check_finite(inner)
        return inner
    found = next(((name, each) for name, each in inner.named_modules() if isinstance(each, PreTrainedModel)), None)
    inside = describe_inside(*found) if found else ""
    raise UserError(
        f"model: {type(inner).__name__} is no model of transformers, and only these can be exported.{inside}"
    )


def describe_inside(name: str, model: PreTrainedModel) -> str:
    """Return what to do about the model of transformers inside of another, as the end of a message."""
    kind = type(model).__name__
    if "For" in kind:
        return f" It holds one: give {name}, a {kind}, with the head of the task."
    return (
        f" It holds one, {name}, a {kind} without a head. If it embeds texts, save it and export the directory: "
        "python -m sparse_xp.export task=custom_embedding model.checkpoint=DIR data.train=TEXTS out=DIR."
    )


def check_finite(model: PreTrainedModel) -> None:
    """Raise UserError for a weight that is NaN or infinite: nothing that the model computes would be a number."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise UserError(
                f"model: {name} holds NaN or infinity, so the model computes no numbers. Its training has diverged, or "
                "its file is damaged."
            )


def copied_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """Return a copy of the tokenizer that makes no inputs but those of ``model``. Raises UserError for one that no
    deployment folder can hold, or that does not fit the model.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or not tokenizer.is_fast:
        raise UserError(
            f"tokenizer: expected a fast tokenizer of transformers, not {type(tokenizer).__name__}: "
            "AutoTokenizer.from_pretrained(...), or PreTrainedTokenizerFast(tokenizer_object=...) of one of tokenizers."
        )
    check_vocabulary(tokenizer, "the tokenizer", getattr(model.config, "vocab_size", None), "the model")
    copied = copy.deepcopy(tokenizer)
    taken = inspect.signature(model.forward).parameters
    no_types = getattr(model.config, "type_vocab_size", 2) < 2  # as drop_token_types
    copied.model_input_names = [
        name for name in copied.model_input_names if name in taken and not (no_types and name == "token_type_ids")
    ]
    return copied


@contextmanager
def on_cpu_in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Let ``model`` compute on the CPU, in float32 and in evaluation mode, in the block; then it is as it was.

    Other tensors take the places of its own, which are neither moved nor changed: optimizers, hooks of DDP and masks
    keep what they refer to.
    """
    modules = list(model.modules())
    tensors: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (holder, dict(holder)) for each in modules for holder in (each._parameters, each._buffers)
    ]
    modes, patched = [(each, each.training) for each in modules], vars(model).get("forward")
    compiled = [(each, each._compiled_call_impl) for each in modules if each._compiled_call_impl is not None]
    copies: dict[int, Tensor | None] = {id(None): None}  # by the tensor that it stands for: tied ones stay tied
    try:
        if patched and "_original_forward" in vars(model):
            del model.forward  # Accelerate's, which computes in half precision
        for module in modules:
            module.training = False
        for module, _ in compiled:
            module._compiled_call_impl = None
        for holder, own in tensors:
            for name, tensor in own.items():
                holder[name] = copies.setdefault(id(tensor), _for_cpu(tensor))
        with torch.device("cpu"), torch.autocast("cpu", enabled=False):
            yield
    finally:
        for holder, own in tensors:
            holder.update(own)
        for module, mode in modes:
            module.training = mode
        for module, call in compiled:
            module._compiled_call_impl = call
        if patched:
            model.forward = patched


def _for_cpu(tensor: Tensor | None) -> Tensor | None:
    """Return a parameter or a buffer on the CPU, in float32 if it is of floating point; itself if it is so already."""
    if tensor is None:
        return None
    moved = tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
    if moved.device == tensor.device and moved.dtype == tensor.dtype:
        return tensor
    return nn.Parameter(moved, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved
