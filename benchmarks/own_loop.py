"""What does a recipe cost a training loop of one's own?  python benchmarks/own_loop.py --model DIR [--rounds 15]

A model trains in a plain loop, and a copy of it in a loop with ``Sparsifier``. Its masks are at rest: pruned to 80 %,
held, no teacher. Both loops take turns with the same batches of random tokens, and the medians of the rounds count.
Prints seconds a step and the ratio for each batch size; with --parts also what each hook takes.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from sparse_xp.cpu import this_cpu
from sparse_xp.modifiers import MagnitudePruning
from sparse_xp.sparsifier.sparsifier import Sparsifier


def batch_of(rows: int, tokens: int, seed: int) -> dict[str, torch.Tensor]:
    """Random tokens and labels."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, 20000, (rows, tokens), generator=generator)
    labels = torch.randint(2, (rows,), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> float:
    """Make a step; return its seconds."""
    began = time.perf_counter()
    model(**batch).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - began


def sparse_step(model: nn.Module, sparsifier: Sparsifier, batch: dict[str, torch.Tensor]) -> float:
    """Make a step with the recipe; return its seconds."""
    began = time.perf_counter()
    outputs = model(**batch)
    sparsifier.loss(outputs.loss, outputs, batch).backward()
    sparsifier.step()
    return time.perf_counter() - began


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batches", default="32x128,8x64", help="rows x tokens")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dense = AutoModelForSequenceClassification.from_pretrained(options.model).train()
    sparse = copy.deepcopy(dense)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True) for model in (dense, sparse)]
    recipe = MagnitudePruning(final_sparsity=0.8, end="1 step", update_frequency="1 step")
    sparsifier = Sparsifier(recipe, sparse, optimizers[1], steps_per_epoch=1000, epochs=1, max_grad_norm=1.0)
    weights = sum(mask.numel() for mask in sparsifier.modifiers["MagnitudePruning"].targets.values())  # type: ignore[attr-defined]
    print(f"{this_cpu()}, 1 thread; {weights / 1e6:.1f} million of the weights are masked")
    for text in options.batches.split(","):
        rows, tokens = map(int, text.split("x"))
        seconds: list[tuple[float, float]] = []
        for number in range(options.rounds + 2):
            batch = batch_of(rows, tokens, number)
            calls = [
                lambda b=batch: plain_step(dense, optimizers[0], b),
                lambda b=batch: sparse_step(sparse, sparsifier, b),
            ]
            order = (0, 1) if number % 2 else (1, 0)
            pair = [0.0, 0.0]
            for side in order:
                pair[side] = calls[side]()
            seconds.append((pair[0], pair[1]))
        ratios = [with_recipe / plain for plain, with_recipe in seconds[2:]]
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
        plain, with_recipe = (statistics.median(side) for side in zip(*seconds[2:], strict=True))
        print(
            f"{rows} rows of {tokens}: {plain:.3f} s a step, with the recipe {with_recipe:.3f} s; "
            f"ratio {statistics.median(ratios):.4f} ({low:.4f} to {high:.4f})"
        )
        if options.parts:
            show_parts(sparsifier)


def show_parts(sparsifier: Sparsifier) -> None:
    """Print the milliseconds that each hook takes."""
    model = sparsifier.context.model
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    for name in ("begin_step", "before_update", "after_update"):
        times = []
        for _ in range(20):
            sparsifier.began = name != "begin_step"
            began = time.perf_counter()
            getattr(sparsifier, name)()
            times.append(time.perf_counter() - began)
        print(f"  {name}: {1e3 * statistics.median(times):.2f} ms")
    sparsifier.context.optimizer.zero_grad()


if __name__ == "__main__":
    main()
