"""What a self-attention module has to know besides its matrices when heads are removed from it.

Most modules of transformers need nothing. Some hold the number of their heads; MPNet adds a bias for each head of the
full model, of which a smaller layer reads a part.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sparse_xp.functional.structured.blocks import Block

#: name of the buffer with the numbers of the heads that are left [heads]; it is saved with the weights
HEAD_NUMBERS = "kept_heads"


def set_head_count(model: nn.Module, block: Block, heads: int) -> None:
    """Write into the self-attention of ``block``, where it holds them, the number of ``heads`` and their width."""
    module = model.get_submodule(block.self_attention)
    for name, value in (("num_attention_heads", heads), ("all_head_size", heads * block.head_size)):
        if hasattr(module, name):
            setattr(module, name, value)


def head_numbers(model: nn.Module, block: Block, heads: int) -> Tensor:
    """Return the numbers that the ``heads`` of ``block`` have in the full model [heads], int64."""
    numbers = getattr(model.get_submodule(block.self_attention), HEAD_NUMBERS, None)
    return torch.arange(heads) if numbers is None else numbers


def select_head_bias(model: nn.Module, block: Block, numbers: Tensor | None) -> None:
    """Let ``block`` read the bias of the heads with these ``numbers`` [heads] alone; None: that of all heads.

    Without effect on architectures without such a bias.
    """
    argument = block.architecture.head_bias_argument
    if argument is None:
        return
    module = model.get_submodule(block.self_attention)
    hooked = HEAD_NUMBERS in module._buffers
    module.register_buffer(HEAD_NUMBERS, numbers, persistent=numbers is not None)
    if not hooked:
        module.register_forward_pre_hook(partial(_select_bias, argument=argument))


def _select_bias(module: nn.Module, args: tuple[Any, ...], argument: int) -> tuple[Any, ...] | None:
    """Replace the bias [rows, heads of the full model, tokens, tokens] in ``args`` by that of the heads that are left.

    A forward pre-hook of PyTorch.
    """
    numbers = module._buffers[HEAD_NUMBERS]
    if numbers is None or len(args) <= argument or args[argument] is None:
        return None
    return (*args[:argument], args[argument].index_select(1, numbers), *args[argument + 1 :])
