"""Attention masks for a GPU, made without waiting for it.

transformers looks at the values of a padding mask, to leave it out where nothing is padded. Reading a value stops the
host until the GPU has done all that it was given. Here a mask that is given is used, and one that is left out costs
nothing: the collated batch, still in host memory, tells which of the two it is (``has_padding``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.utils.generic import ModelOutput

#: the name under which transformers finds PyTorch's attention with ``unread_mask``
UNREAD_ATTENTION = "sparse_xp_gpu"


def has_padding(host_batch: dict[str, Tensor]) -> bool:
    """Return whether a batch in host memory has a padded token."""
    return not bool(host_batch["attention_mask"].all())


def unread_mask(
    *, attention_mask: Tensor | None = None, allow_is_bidirectional_skip: bool = False, **arguments: object
) -> Tensor | None:
    """Return the mask [rows, 1, tokens, tokens], bool, of ``attention_mask`` [rows, tokens]; None without one."""
    skip = allow_is_bidirectional_skip and attention_mask is None
    make: Callable[..., Tensor | None] = sdpa_mask
    return make(attention_mask=attention_mask, allow_is_bidirectional_skip=skip, **arguments)


def call_without_mask(model: PreTrainedModel, **inputs: Tensor) -> ModelOutput:
    """Return the outputs of ``model`` for inputs of which nothing is padded."""
    outputs: ModelOutput = model(**{name: value for name, value in inputs.items() if name != "attention_mask"})
    return outputs


AttentionInterface.register(UNREAD_ATTENTION, sdpa_attention_forward)
AttentionMaskInterface.register(UNREAD_ATTENTION, unread_mask)


@contextmanager
def unread_masks(model: PreTrainedModel) -> Iterator[None]:
    """Make the attention masks of ``model`` without reading their values, within the block."""
    implementation = model.config._attn_implementation
    if implementation == "sdpa":
        model.set_attn_implementation(UNREAD_ATTENTION)
    try:
        yield
    finally:
        if implementation == "sdpa":
            model.set_attn_implementation(implementation)
