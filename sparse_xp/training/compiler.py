"""Compile the encoder of a run: ``train.compile``. Loaded only then, as the compiler takes seconds to load."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from torch.utils._triton import has_triton

from sparse_xp.errors import UserError
from sparse_xp.training.compiled import EncoderForward, encoder_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def compile_encoder(model: PreTrainedModel, device: torch.device, cuda_graphs: bool) -> EncoderForward:
    """Return the forward pass of the encoder of ``model``, compiled once for batches of all shapes.

    ``cuda_graphs``: record the kernels of each shape and replay them, which costs the host almost nothing. Gradients
    then lie in the memory of the recording, so that a step may have one micro-batch only. On a CPU dropout draws the
    same numbers as without compiling. Raises UserError without a compiler.
    """
    check_compiler(device)
    options: dict[str, str | int | bool | Callable[..., object]] = {
        "triton.cudagraphs": cuda_graphs,
        "fallback_random": device.type == "cpu",
    }
    compiled: EncoderForward = torch.compile(encoder_of(model).forward, dynamic=True, options=options)
    return compiled


def check_compiler(device: torch.device) -> None:
    """Raise UserError if PyTorch lacks what it compiles with: Triton on a GPU, a C++ compiler on a CPU."""
    if device.type == "cpu":
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise UserError(
                "train.compile=true needs a C++ compiler on a CPU, and there is none. Install g++ or clang, or leave "
                "train.compile out."
            ) from None
    elif device.type != "mps" and not has_triton():
        raise UserError(
            f"train.compile=true needs Triton for {device.type} (pip install triton), and it is missing or does not "
            "support this GPU. Install it, or leave train.compile out."
        )
