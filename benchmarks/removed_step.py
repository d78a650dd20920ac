"""How much faster a step trains without removed groups:  python benchmarks/removed_step.py MODEL [--kept 0.5 0.25]

MODEL is a directory. For each part that is kept of the heads and neurons, a step of the model in which the others are
zeros and one from which they are cut out take turns on one thread. With ``--int8`` both train in 8 bits. Printed:
milliseconds of each, and the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import copy
import statistics

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from benchmarks.eight_bit_step import make_step
from sparse_xp.cpu import this_cpu
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import prepare
from sparse_xp.functional.structured.blocks import LayerMask, encoder_blocks, linear_at
from sparse_xp.functional.structured.removal import remove_groups, zero_groups


def masks_of(model: PreTrainedModel, kept: float) -> dict[str, LayerMask]:
    """Return masks that keep the first heads and neurons of each layer, this part of them."""
    masks = {}
    for block in encoder_blocks(model):
        counts = linear_at(model, block.output).in_features // block.head_size, linear_at(model, block.down).in_features
        heads, neurons = (torch.arange(count) < max(1, round(kept * count)) for count in counts)
        masks[block.name] = heads, neurons
    return masks


def main() -> None:
    """Print a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--kept", type=float, nargs="+", default=[0.5, 0.25])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--int8", action="store_true", help="train in 8 bits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ids = torch.randint(1000, 20_000, (options.rows, options.tokens))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
    for kept in options.kept:
        zeros = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2).train()
        masks = masks_of(zeros, kept)
        for block in encoder_blocks(zeros):
            for name, mask in block.linear_masks(*masks[block.name]).items():
                zero_groups(linear_at(zeros, name), mask)
        cut, mode = copy.deepcopy(zeros), QuantMode(active=True) if options.int8 else None
        remove_groups(cut, masks)
        for model in (zeros, cut):
            if mode is not None:
                prepare(model, QuantConfig(reduce_range=True), mode)
            model.optimizer = torch.optim.AdamW(model.parameters(), 1e-5, fused=True)
        steps = [
            (make_step(zeros, batch, mode, None), make_step(cut, batch, mode, None)) for _ in range(options.rounds + 2)
        ][2:]
        ratios = sorted(full / small for full, small in steps)
        first, second = (1e3 * statistics.median(each) for each in zip(*steps, strict=True))
        print(
            f"{this_cpu()}; {'8 bits' if options.int8 else 'fp32'}, {options.rows}x{options.tokens}, {kept:.0%} kept: "
            f"{first:.0f} ms with zeros, {second:.0f} ms without; {statistics.median(ratios):.2f} times as fast "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
