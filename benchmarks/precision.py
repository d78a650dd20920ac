"""Is bf16 autocast faster than float32 for training on this CPU?  python benchmarks/precision.py

Times optimizer steps of one model in both precisions in turn, so that a busy machine slows both, and prints the
median of the ratios, for the tiny BERT of profile=embedded and for a 6-layer 384-wide BERT of random weights.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from transformers import BertConfig, BertForQuestionAnswering


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor], bf16: bool) -> float:
    """Seconds of one optimizer step."""
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - began


def main() -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=160)
    arguments = parser.parse_args()
    shapes = {"tiny": (2, 64, 128, 4, 1000), "6 x 384": (6, 384, 1536, 12, 30522)}
    for name, (layers, hidden, intermediate, heads, vocabulary) in shapes.items():
        torch.manual_seed(0)
        config = BertConfig(
            num_hidden_layers=layers,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_attention_heads=heads,
            vocab_size=vocabulary,
        )
        model = BertForQuestionAnswering(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        ids = torch.randint(5, vocabulary, (arguments.rows, arguments.tokens))
        where = torch.randint(0, arguments.tokens, (arguments.rows,))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "start_positions": where}
        batch["end_positions"] = where
        for bf16 in (False, True):
            step(model, optimizer, batch, bf16)
        pairs = [
            (step(model, optimizer, batch, False), step(model, optimizer, batch, True)) for _ in range(arguments.rounds)
        ]
        ratio = statistics.median(plain / half for plain, half in pairs)
        tokens = arguments.rows * arguments.tokens / statistics.median(half for _, half in pairs)
        threads = torch.get_num_threads()
        print(f"{name}: a float32 step takes {ratio:.2f} times a bf16 step ({tokens:.0f} tokens/s, {threads} threads)")


if __name__ == "__main__":
    main()
