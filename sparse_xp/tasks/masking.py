"""Masking for language models: which tokens to guess, and what the model sees instead. Pure functions of arrays.

pretraining.py imports this module late, for numpy.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from sparse_xp.errors import UserError
from sparse_xp.tasks.base import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: shares of the chosen tokens that become [MASK], or any token of the vocabulary; the others stay as they are
HIDDEN, REPLACED = 0.8, 0.1


def mask_tokens(
    tokens: np.ndarray,
    maskable: np.ndarray,
    rng: np.random.Generator,
    share: float,
    mask_token: int,
    vocabulary: int,
    continues: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the masked ``tokens`` [tokens], and the labels: the tokens to guess, ``IGNORED`` elsewhere.

    Each of the ``maskable`` [tokens] bool is chosen with probability ``share``, at least one. With ``continues``
    [tokens] bool, the tokens that continue the word of the token before, whole words are chosen. Of the chosen tokens
    80 % become ``mask_token``, 10 % any token below ``vocabulary``, 10 % stay (Devlin et al. 2019, section 3.1).
    """
    draws = rng.random(len(tokens))
    if continues is not None:  # all tokens of a word share the draw of its number
        draws = draws[np.cumsum(~continues) - (not continues[0] if len(continues) else 0)]
    chosen = maskable & (draws < share)
    if maskable.any() and not chosen.any():
        chosen = maskable & (draws == draws[maskable].min())
    labels = np.where(chosen, tokens, IGNORED)
    fate, random_tokens = rng.random(len(tokens)), rng.integers(vocabulary, size=len(tokens))
    masked = np.where(chosen & (fate < HIDDEN), mask_token, tokens)
    replaced = chosen & (fate >= HIDDEN) & (fate < HIDDEN + REPLACED)
    return np.where(replaced, random_tokens, masked), labels


def fixed_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the special tokens, which are never masked."""
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    return [int(token) for token in special if isinstance(token, int)]


def mask_token_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of [MASK]. Raises UserError for a tokenizer without one."""
    if not isinstance(tokenizer.mask_token_id, int):
        raise UserError("This tokenizer has no mask token: masked language modelling needs one.")
    return tokenizer.mask_token_id


@lru_cache(maxsize=2)  # a batch asks, and the vocabulary is long
def word_parts(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return for each token of the vocabulary whether it continues the word of the token before, bool [vocabulary].

    WordPiece marks such tokens by a prefix (``##s``), byte-level BPE the others (``Ġ``). Raises UserError for other
    tokenizers.
    """
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens)
    pieces = any(token.startswith("##") for token in vocabulary)
    if not pieces and not any(token.startswith("Ġ") for token in vocabulary):
        raise UserError("task.whole_word_mask=true: this tokenizer does not show in a token whether it begins a word.")
    continues = np.zeros(max(vocabulary.values()) + 1, bool)
    for token, number in vocabulary.items():
        if token not in special:
            continues[number] = token.startswith("##") if pieces else token[:1] not in ("Ġ", "Ċ")
    return continues
