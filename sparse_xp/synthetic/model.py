"""A tiny BERT with random weights and a vocabulary for the generated texts, built on the spot."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

from sparse_xp.functional.masks import magnitude_scores, mask_from_scores
from sparse_xp.functional.patterns import Pattern
from sparse_xp.functional.selection import select_parameters

#: the parameters of a generated checkpoint that are sparse: the pooler too, as in those of Prune Once for All
SPARSE = "__BODY__"
MAX_TOKENS = 512
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Return special tokens, characters (so that any text has tokens), and every word of the texts.

    ``{name}`` in a text is a placeholder, and no word.
    """
    words = {word for text in texts for word in re.findall("[a-z]+", re.sub(r"\{\w*\}", " ", text).lower())}
    characters = [*string.punctuation, *string.digits, *string.ascii_lowercase]
    return [
        *SPECIAL_TOKENS,
        *characters,
        *(f"##{character}" for character in characters),
        *sorted(words - set(characters)),
    ]


def build_checkpoint(
    directory: Path,
    words: list[str],
    sparsity: float = 0.0,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    intermediate: int = 128,
    seed: int = 0,
) -> None:
    """Write a BERT of random weights and a tokenizer of the vocabulary ``words``, as ``from_pretrained`` reads them.

    Each weight matrix of encoder and pooler has round(n * ``sparsity``) zeros in place of its smallest weights. The
    same arguments give the same bytes; the caller's random state is left as it was. Raises ValueError for a sparsity
    outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity={sparsity}; expected a fraction in [0, 1)")
    config = BertConfig(
        vocab_size=len(words),
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.05,  # BERT's 0.02 suits a width of 768
    )
    model = random_bert(config, seed)
    prune_by_magnitude(model, sparsity)
    model.save_pretrained(directory)
    tokenizer_of(words).save_pretrained(directory)


def random_bert(config: BertConfig, seed: int) -> BertModel:
    """Return a BERT with the random weights of a seed; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too, for good
        return BertModel(config)


@torch.no_grad()
def prune_by_magnitude(model: BertModel, sparsity: float) -> None:
    """Set the smallest weights of each weight matrix of encoder and pooler to zero."""
    for weight in select_parameters(model, [SPARSE]).values():
        weight.mul_(mask_from_scores(magnitude_scores(weight), sparsity, Pattern()))


def tokenizer_of(words: list[str]) -> BertTokenizer:
    """Return a WordPiece tokenizer with the vocabulary ``words``."""
    return BertTokenizer(
        vocab={word: number for number, word in enumerate(words)}, do_lower_case=True, model_max_length=MAX_TOKENS
    )
