"""Both products of attention with fake-quantized factors: queries times keys, and probabilities times values.

``prepare_attention`` gives each self-attention a ``QuantAttention``, and the model the attention function that asks it.
The life of its ranges is that of the Linears' (``quant_modules``): they are observed, frozen, saved and exported alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.functional import dropout as plain_dropout
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from sparse_xp.errors import UserError
from sparse_xp.functional.architectures import architecture_of
from sparse_xp.functional.attention_maps import PLAIN
from sparse_xp.functional.fake_quant import MinMaxObserver
from sparse_xp.functional.layers import encoder_layers, model_type_of, weighted_paths
from sparse_xp.functional.model_calls import full_precision
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import QuantState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: the name under which transformers finds ``quantized_attention``
ATTENTION_NAME = "sparse_xp_integers"
#: the child of a self-attention that rounds the factors of its products
CHILD = "products"
#: the factors of the two products
FACTORS = ("query", "key", "probabilities", "value")


class QuantAttention(nn.Module):
    """Fake-quantizes the factors of attention's products, each with a range of its own.

    ``quant``: the settings and the mode that all modules of a model share. ``observers``: by factor.
    """

    def __init__(self, config: QuantConfig, mode: QuantMode, observers: dict[str, MinMaxObserver] | None = None):
        super().__init__()
        self.quant = QuantState(config, mode, config.activation_bits)
        self.observers = observers or {factor: MinMaxObserver() for factor in FACTORS}

    @property
    def active(self) -> bool:
        """Whether factors are rounded."""
        return self.quant.mode.active

    def forward(self, factor: str, values: Tensor) -> Tensor:
        """Return the rounded values of a factor, in the same shape."""
        return self.quant.round_activation(values, self.observers[factor], self.training)


def quantized_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute scaled dot-product attention for transformers, with rounded factors once quantization is active.

    Maps query, key and value [rows, heads, tokens, width] to [rows, tokens, heads, width]. ``attention_mask``: a float
    that is added to the scores.
    """
    rounded: Any = module.get_submodule(CHILD)
    if not rounded.active:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    with full_precision(query.device):
        # Transposed before it is rounded, and scaled after the product: engines look for a product of rounded factors.
        scores = rounded("query", query) @ rounded("key", key.transpose(2, 3))
        scores = scores * (scaling if scaling is not None else query.shape[-1] ** -0.5)
        if attention_mask is not None:
            scores = scores + attention_mask
        weights = plain_dropout(rounded("probabilities", scores.softmax(-1)), dropout, module.training)
        return (weights @ rounded("value", value)).transpose(1, 2).contiguous().to(value.dtype), None


AttentionInterface.register(ATTENTION_NAME, quantized_attention)
AttentionMaskInterface.register(ATTENTION_NAME, eager_mask)


def prepare_attention(model: PreTrainedModel, config: QuantConfig, mode: QuantMode) -> dict[str, QuantAttention]:
    """Make the attention of ``model`` quantizable in place; return what rounds its factors by name of the attention.

    Numbers change only once ``mode.active``. Raises UserError for a model whose attention is of another kind.
    """
    prepared = {name: QuantAttention(config, mode) for name in self_attentions(model)}
    install_attention(model, prepared)
    return prepared


def install_attention(model: PreTrainedModel, prepared: dict[str, QuantAttention]) -> None:
    """Put each of ``prepared`` into the self-attention of its name."""
    for name, module in prepared.items():
        model.get_submodule(name).register_module(CHILD, module)
    model.set_attn_implementation(ATTENTION_NAME)


def self_attentions(model: PreTrainedModel) -> list[str]:
    """Return the names of the self-attentions of all encoder layers. Raises UserError for those of another kind."""
    names: list[str] = []
    for name, layer in encoder_layers(model).items():
        architecture = architecture_of(model_type_of(model), weighted_paths(layer))
        if architecture is None or architecture.name not in PLAIN or not model._supports_attention_backend:
            names = []
            break
        names.append(f"{name}.{architecture.self_attention}")
    if not names:
        raise UserError(
            f"quantization.attention_products=true: the attention of {type(model).__name__} is of another kind than "
            "BERT's. It is for BERT, RoBERTa, XLM-R, ELECTRA, MiniLM and DistilBERT."
        )
    return names


def quantized_attentions(model: nn.Module) -> Iterator[tuple[str, QuantAttention]]:
    """Yield what rounds the factors of each attention whose quantization is active, by name of the attention."""
    for name, module in model.named_modules():
        if isinstance(module, QuantAttention) and module.active:
            yield name.removesuffix(f".{CHILD}"), module
