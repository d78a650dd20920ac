"""A tiny BERT with random weights and a vocabulary for the generated texts, built on the spot."""

from __future__ import annotations

import re
import string
from pathlib import Path

from sparse_xp.synthetic import entities as generate_entities
from sparse_xp.synthetic.words import ADVERBS, ASPECTS, BAD, DISLIKED, FILLINGS, GOOD, LIKED, PEOPLE, TOPICS, VIEWERS

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def vocabulary() -> list[str]:
    """Special tokens, characters (so that any text has tokens), and every word that the generators use."""
    texts = [*PEOPLE, *GOOD, *BAD, *ASPECTS, *ADVERBS, *FILLINGS, "the and then is"]
    texts += [*VIEWERS, *LIKED, *DISLIKED, "of films it never"]
    for forms, questions, kinds in TOPICS:
        texts += [*forms, *questions, *kinds, *(word for words in kinds.values() for word in words)]
    from sparse_xp.synthetic import pairs as generate_pairs  # which takes words from here

    texts += generate_entities.words() + generate_pairs.words()
    words = {word for text in texts for word in re.findall("[a-z]+", re.sub(r"\{\w*\}", " ", text).lower())}
    characters = [*string.punctuation, *string.digits, *string.ascii_lowercase]
    return [*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters), *sorted(words - set(characters))]


#: what of a generated checkpoint is sparse: the pooler too, as in those of Prune Once for All
SPARSE = "__BODY__"


def build_checkpoint(
    directory: Path,
    sparsity: float = 0.0,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    intermediate: int = 128,
    seed: int = 0,
) -> None:
    """Write a BERT of random weights with its tokenizer, as stock ``from_pretrained`` reads it, whole or not at all.

    Each weight matrix of encoder and pooler has round(n * ``sparsity``) zeros in place of its smallest weights. The
    same arguments give the same bytes; the caller's random state is left as it was. Raises ValueError for a sparsity
    outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity={sparsity}; want a fraction in [0, 1)")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    from sparse_xp.functional.masks import magnitude_scores, mask_from_scores
    from sparse_xp.functional.patterns import Pattern
    from sparse_xp.functional.selection import select_parameters

    words = vocabulary()
    config = BertConfig(
        vocab_size=len(words),
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=512,
        initializer_range=0.05,  # BERT's 0.02 suits a width of 768
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    with torch.no_grad():
        for weight in select_parameters(model, [SPARSE]).values():
            weight.mul_(mask_from_scores(magnitude_scores(weight), sparsity, Pattern()))
    tokenizer = BertTokenizer(
        vocab={word: i for i, word in enumerate(words)},
        do_lower_case=True,
        model_max_length=config.max_position_embeddings,
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
