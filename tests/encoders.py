"""Small encoders of every kind of layer that can be reduced, and of RoBERTa, whose head differs from BERT's."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from sparse_xp.functional.cost_model import LayerShape, parameter_costs
from sparse_xp.functional.layers import LayerGate
from sparse_xp.functional.structured.blocks import LayerMask, encoder_blocks, sizes_of

#: where the layers are, and what the configuration calls their number
KINDS = {
    "Bert": ("bert.encoder.layer", "num_hidden_layers"),
    "DistilBert": ("distilbert.transformer.layer", "n_layers"),
    "Roberta": ("roberta.encoder.layer", "num_hidden_layers"),
    "MPNet": ("mpnet.encoder.layer", "num_hidden_layers"),
    "DebertaV2": ("deberta.encoder.layer", "num_hidden_layers"),
    "ModernBert": ("model.layers", "num_hidden_layers"),
    "NomicBert": ("nomic_bert.layers", "num_hidden_layers"),
}
#: what a configuration has besides the sizes
MORE: dict[str, dict[str, Any]] = {
    "DebertaV2": {
        "relative_attention": True,
        "position_buckets": 4,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": False,
        "position_biased_input": False,
        "initializer_range": 0.2,
    },
    "MPNet": {"initializer_range": 0.2},
    "ModernBert": {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
}
#: the shape of a full layer
SHAPES = {kind: LayerShape(8, 2, 4, 16) for kind in KINDS} | {
    "DebertaV2": LayerShape(8, 2, 4, 16, relative_positions=8, head_matrices=6),
    "ModernBert": LayerShape(8, 2, 4, 16, gated=True),
    "NomicBert": LayerShape(8, 2, 4, 16, gated=True),
}
#: kinds whose first layer cannot be removed
FIRST_STAYS = ("ModernBert",)


def make_encoder(kind: str, layers: int = 4, seed: int = 0, **more: Any) -> Any:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": layers, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 24,
    }  # fmt: skip
    if kind == "DistilBert":
        shape = {"vocab_size": 30, "dim": 8, "n_layers": layers, "n_heads": 2, "hidden_dim": 16}
    config = getattr(transformers, f"{kind}Config")(**shape, **MORE.get(kind, {}), **more)
    return getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()


BATCH = {
    "input_ids": torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


def removed_share(kind: str, heads: int, neurons: int, layers: int = 4) -> float:
    """Return the part of the weights that is gone if so many ``heads`` and ``neurons`` of all layers are left."""
    costs, shape = parameter_costs(SHAPES[kind]), SHAPES[kind]
    full = layers * (costs.heads[shape.heads] + costs.neurons[shape.neurons])
    return 1 - (heads * costs.heads[1] + neurons * costs.neurons[1]) / full


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
