"""What a cut costs before any training:  python -m benchmarks.embeddings.one_cut MODEL TEXTS.txt [--texts 256]

MODEL is a directory of an embedding model, with mean pooling. It is cut once, to 75, 50 and 25 % of the heads and
neurons of each layer: by gradients of the embeddings (``score=first_order``), and by the error that is left
(``score=obs``) with and without the repair. Printed: the mean cosine of 500 other texts with the whole model's.
"""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from sparse_xp.functional.structured.blocks import Block, LayerMask, encoder_blocks, linear_at
from sparse_xp.functional.structured.removal import remove_groups
from sparse_xp.functional.structured.scores import without_lowest
from sparse_xp.modifiers.structured.gradients import BATCHES, output_gradients
from sparse_xp.modifiers.structured.masks import full_masks
from sparse_xp.modifiers.structured.obs import input_moments, remove_with_repair

#: parts of the heads and neurons that are kept
KEPT = (0.75, 0.5, 0.25)
#: texts that are compared
COMPARED = 500


class Texts:
    """Batches of texts, as the model sees them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: list[str]):
        self.tokenizer, self.texts = tokenizer, texts

    def batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """Yield all texts in their order, ``size`` at a time, cut at 128 tokens."""
        for start in range(0, len(self.texts), size):
            texts = self.texts[start : start + size]
            yield dict(self.tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt"))


def embed(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Return the embeddings of a batch, of length 1: [texts, dimensions]."""
    states, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None].float()
    return normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


def random_projection(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Return what ``SentenceEmbedding.curvature_loss`` does, whose gradients are scored."""
    vectors = embed(model, batch)
    generator = torch.Generator().manual_seed(int(batch["input_ids"].sum()))
    return (vectors * (torch.randint(0, 2, vectors.shape, generator=generator) * 2 - 1)).sum(-1).mean()


def as_context(model: PreTrainedModel, texts: Texts) -> Any:
    """Return as much of a run as the removal looks at: ``BATCHES`` batches of ``texts``."""
    size = -(-len(texts.texts) // BATCHES)
    return SimpleNamespace(
        model=model,
        accelerator=SimpleNamespace(device=torch.device("cpu"), num_processes=1, scaler=None),
        gradient_batches=lambda *_: texts.batches(size),
        task_loss=lambda batch: random_projection(model, batch),
    )


def sizes_at(masks: dict[str, LayerMask], kept: float) -> list[tuple[int, int]]:
    """Return heads and neurons of each layer when this part is kept."""
    return [(round(kept * len(heads)), round(kept * len(neurons))) for heads, neurons in masks.values()]


def by_gradients(model: PreTrainedModel, blocks: list[Block], texts: Texts, kept: float) -> dict[str, LayerMask]:
    """Return the masks of ``score=first_order``."""
    sums: dict[str, Tensor] = {}
    for gradients in output_gradients(as_context(model, texts), blocks, {}, "first_order"):
        sums = {name: sums.get(name, 0) + values.abs() for name, values in gradients.items()}
    masks = full_masks(model, blocks, [(len(sums[block.output]), len(sums[block.down])) for block in blocks])
    return {
        block.name: (
            without_lowest(sums[block.output], masks[block.name][0], heads),
            without_lowest(sums[block.down], masks[block.name][1], neurons),
        )
        for block, (heads, neurons) in zip(blocks, sizes_at(masks, kept), strict=True)
    }


def by_error(
    model: PreTrainedModel, blocks: list[Block], texts: Texts, kept: float, repair: bool
) -> dict[str, LayerMask]:
    """Return the masks of ``score=obs``; repair ``model`` if asked to."""
    context = as_context(model if repair else copy.deepcopy(model), texts)
    sizes = [
        (linear_at(model, block.output).in_features // block.head_size, linear_at(model, block.down).in_features)
        for block in blocks
    ]
    masks = full_masks(model, blocks, sizes)
    moments = input_moments(context, blocks)
    return remove_with_repair(context, blocks, masks, moments, sizes_at(masks, kept), multiple=16)


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--texts", type=int, default=256, dest="count", help="how many the choice is made by")
    options = parser.parse_args()
    torch.set_num_threads(1)
    whole, tokenizer = AutoModel.from_pretrained(options.model).eval(), AutoTokenizer.from_pretrained(options.model)
    lines = options.texts.read_text(encoding="utf-8").splitlines()
    random.Random(0).shuffle(lines)
    others, known = Texts(tokenizer, lines[:COMPARED]), Texts(tokenizer, lines[COMPARED : COMPARED + options.count])
    ways: dict[str, Callable[..., dict[str, LayerMask]]] = {
        "first_order": by_gradients,
        "obs, without the repair": lambda *words: by_error(*words, repair=False),
        "obs": lambda *words: by_error(*words, repair=True),
    }
    for way, choose in ways.items():
        cosines = []
        for kept in KEPT:
            model = copy.deepcopy(whole)
            remove_groups(model, choose(model, encoder_blocks(model), known, kept))
            with torch.no_grad():
                pairs = [(embed(whole, batch) * embed(model, batch)).sum(1) for batch in others.batches(50)]
            cosines.append(f"{torch.cat(pairs).mean():.3f}")
        print(f"{way}, {options.count} texts, {', '.join(f'{kept:.0%}' for kept in KEPT)} kept: {', '.join(cosines)}")


if __name__ == "__main__":
    main()
