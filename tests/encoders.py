"""Small encoders of the three kinds that have loops of their own: BERT, DistilBERT, RoBERTa."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from sparse_xp.functional.layers import LayerGate
from sparse_xp.functional.structured.blocks import LayerMask, encoder_blocks, sizes_of

#: where the layers are, and what the configuration calls their number
KINDS = {
    "Bert": ("bert.encoder.layer", "num_hidden_layers"),
    "DistilBert": ("distilbert.transformer.layer", "n_layers"),
    "Roberta": ("roberta.encoder.layer", "num_hidden_layers"),
}


def make_encoder(kind: str, layers: int = 4, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": layers, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 24,
    }  # fmt: skip
    if kind == "DistilBert":
        shape = {"vocab_size": 30, "dim": 8, "n_layers": layers, "n_heads": 2, "hidden_dim": 16}
    config = getattr(transformers, f"{kind}Config")(**shape)
    return getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()


BATCH = {
    "input_ids": torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


def logits(model: Any) -> torch.Tensor:
    """Return the logits of ``BATCH`` in eval mode."""
    with torch.no_grad():
        return model.eval()(**BATCH).logits


def close_layers(model: Any, *closed: int) -> dict[str, LayerMask]:
    """Close the gates of some layers of ``model``; return the masks of what is left."""
    kept = {}
    for number, block in enumerate(encoder_blocks(model)):
        gate = LayerGate(model.get_submodule(block.name))
        gate.set_state(is_open=number not in closed, tracks_gradient=False)
        kept[block.name] = tuple(torch.full((n,), number not in closed) for n in sizes_of(model)[number])
    return kept


def tiny_bert(num_layers: int = 2) -> transformers.BertConfig:
    """Return the configuration of a BERT with 8192 prunable weights in each layer."""
    return transformers.BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
