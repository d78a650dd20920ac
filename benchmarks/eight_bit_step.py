"""What training in 8 bits adds to a step:  python benchmarks/eight_bit_step.py MODEL [--rows 32] [--tokens 64]

MODEL is a directory. A step of the model in float32 and one with its weights and activations rounded take turns on one
thread (on a GPU in ``--precision``). Printed: milliseconds of each, and the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from contextlib import nullcontext

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from sparse_xp.cpu import this_cpu
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import prepare


def make_step(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], mode: QuantMode | None, precision: torch.dtype | None
) -> float:
    """Make one optimizer step and return its seconds: of this thread on a CPU, of the clock on a GPU."""
    device = batch["input_ids"].device.type
    clock = time.thread_time if device == "cpu" else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    began = clock()
    if mode is not None:
        mode.step += 1
    with torch.autocast(device, precision) if precision else nullcontext():
        loss = model(**batch).loss
    loss.backward()
    model.optimizer.step()
    model.optimizer.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def main() -> None:
    """Print the two and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["bf16", "fp16"], help="autocast on a GPU; float32 without it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    precision = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}[options.precision]
    plain = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2).to(options.device).train()
    rounded, mode = copy.deepcopy(plain), QuantMode(active=True)
    prepare(rounded, QuantConfig(reduce_range=True), mode)
    for model in (plain, rounded):
        model.optimizer = torch.optim.AdamW(model.parameters(), 1e-5, fused=True)
    ids = torch.randint(1000, 20_000, (options.rows, options.tokens), device=options.device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
    pairs = []
    for _ in range(options.rounds + 2):
        pairs.append((make_step(plain, batch, None, precision), make_step(rounded, batch, mode, precision)))
    pairs = pairs[2:]
    ratios = sorted(rounded / plain for plain, rounded in pairs)
    first, second = (1e3 * statistics.median(each) for each in zip(*pairs, strict=True))
    print(
        f"{this_cpu()}; {options.device}, {options.precision or 'fp32'}, {options.rows}x{options.tokens}: plain "
        f"{first:.0f} ms, in 8 bits {second:.0f} ms; ratio {statistics.median(ratios):.3f} "
        f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
    )


if __name__ == "__main__":
    main()
