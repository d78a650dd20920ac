"""Small models of several kinds, batches for them, and the plain loop that the tests of this directory train with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

from sparse_xp.sparsifier.sparsifier import Sparsifier
from tests.tiny import make_bert

STEPS_PER_EPOCH, STEPS = 4, 12


class Cnn(nn.Module):
    """Two convolutions with batch norms and a Linear, as in the classifiers of torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(images)))
        return self.head(F.relu(self.norm2(self.conv2(hidden))).mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM over embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm, self.head = nn.Embedding(20, 8), nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.table(tokens))[0][:, -1])


class TorchEncoder(nn.Module):
    """The encoder of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.table, self.encoder, self.head = nn.Embedding(20, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.table(tokens)).mean(1))


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


SIZES: dict[str, Any] = {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2}


def make_llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=16, tie_word_embeddings=True, pad_token_id=0, **SIZES,
    ))  # fmt: skip


def make_gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=16, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **SIZES,
    ))  # fmt: skip


def make_modernbert() -> nn.Module:
    return ModernBertForSequenceClassification(ModernBertConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16,
        pad_token_id=0, cls_token_id=3, sep_token_id=4, **SIZES,
    ))  # fmt: skip


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": make_mlp,
    "cnn": Cnn,
    "recurrent": Recurrent,
    "torch encoder": TorchEncoder,
    "llama": make_llama,
    "gpt2": make_gpt2,
    "bert": lambda: make_bert(torch.initial_seed()),
    "modernbert": make_modernbert,
}


def make_model(kind: str, seed: int = 0) -> Any:
    """Return a model, the same for the same seed."""
    torch.manual_seed(seed)
    return MODELS[kind]()


def make_batches(kind: str, count: int = STEPS_PER_EPOCH, rows: int = 8) -> list[Any]:
    """Return batches for a model: pairs for plain modules, mappings for those of transformers."""
    draw = torch.Generator().manual_seed(1)
    labels = [torch.randint(0, 2, (rows,), generator=draw) for _ in range(count)]
    if kind in ("mlp", "cnn"):
        shape = (rows, 8) if kind == "mlp" else (rows, 3, 6, 6)
        return [(torch.randn(shape, generator=draw), each) for each in labels]
    tokens = [torch.randint(5, 20, (rows, 6), generator=draw) for _ in range(count)]
    if kind in ("recurrent", "torch encoder"):
        return list(zip(tokens, labels, strict=True))
    mask = torch.ones(rows, 6, dtype=torch.long)
    mask[: rows // 2, 4:] = 0
    targets = tokens if kind in ("llama", "gpt2") else labels
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": each} for ids, each in zip(tokens, targets, strict=True)
    ]


def forward(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Return the loss of the task, and the outputs."""
    if isinstance(batch, dict):
        outputs = model(**batch)
        return outputs.loss, outputs
    outputs = model(batch[0])
    return F.cross_entropy(outputs.float(), batch[1]), outputs


def loss_function(model: nn.Module, batch: Any) -> Tensor:
    return forward(model, batch)[0]


def sparsify(model: nn.Module, recipe: Any, optimizer: Any = None, **words: Any) -> Sparsifier:
    """Return a Sparsifier of ``STEPS`` steps; by default with AdamW."""
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    words = {"epochs": STEPS // STEPS_PER_EPOCH, "loss_function": loss_function, **words}
    return Sparsifier(recipe, model, optimizer, steps_per_epoch=STEPS_PER_EPOCH, **words)


def train(sparsifier: Sparsifier, model: nn.Module, batches: Sequence[Any], steps: range = range(STEPS)) -> None:
    """Make these steps of the loop."""
    model.train()
    for step in steps:
        batch = batches[step % len(batches)]
        loss, outputs = forward(model, batch)
        sparsifier.loss(loss, outputs, batch).backward()
        sparsifier.step()


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all weights and buffers."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(weights: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    """Fail unless two models have the same weights, bit for bit."""
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []
