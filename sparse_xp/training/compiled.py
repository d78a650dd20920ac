"""Training steps with a compiled encoder (``train.compile``, ``compiler``).

Evaluation and export call the encoder as it is. The head and the losses are not compiled: they are few operations, and
differ from task to task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: a forward pass of an encoder
EncoderForward = Callable[..., Any]


def encoder_of(model: PreTrainedModel) -> nn.Module:
    """Return the encoder below the head; the whole model if it has no head."""
    encoder: nn.Module = model.base_model
    return encoder


@contextmanager
def forward_replaced(module: nn.Module, forward: EncoderForward) -> Iterator[None]:
    """Let ``module`` use ``forward`` within the block. Its hooks stay. A copy made elsewhere has its own forward."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
