"""A hook that begins a step with the model's first forward pass that has gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class ForwardHook:
    """Calls ``begin`` before each forward pass with gradients, with whether the model is in training mode.

    A copy of the model has none of it.
    ``torch.compile`` breaks the graph here instead of compiling what ``begin`` does.
    """

    def __init__(self, begin: Callable[[bool], None] | None = None):
        self.begin: Callable[[bool], None] | None = None if begin is None else torch.compiler.disable(begin)

    def __call__(self, module: nn.Module, inputs: object) -> None:
        """Begin the step if this forward pass trains."""
        if self.begin is not None and torch.is_grad_enabled():
            self.begin(module.training)

    def __deepcopy__(self, memo: object) -> ForwardHook:
        return ForwardHook()

    def __reduce__(self) -> tuple[Any, ...]:
        return ForwardHook, ()
