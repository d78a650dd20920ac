"""Which tokens a masked language model has to guess, and what it sees in their place. Pure functions of arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparse_xp.errors import UserError
from sparse_xp.tasks.token_classification import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: of the chosen tokens: hidden behind [MASK], replaced by any token of the vocabulary; the others stay as they are
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
    """What the model sees of ``tokens`` [tokens], and the labels: the tokens to guess, ``IGNORED`` elsewhere.

    Each of the ``maskable`` [tokens] bool is chosen with probability ``share``, or each word if ``continues`` [tokens]
    bool says which tokens go on with the word of the token before; one at least. Of the chosen 80 % become
    ``mask_token``, 10 % any token below ``vocabulary``, 10 % stay (Devlin et al. 2019, section 3.1).
    """
    draws = rng.random(len(tokens))
    if continues is not None:
        draws = draws[np.cumsum(~continues) - (not continues[0] if len(continues) else 0)]
    chosen = maskable & (draws < share)
    if maskable.any() and not chosen.any():
        chosen = maskable & (draws == draws[maskable].min())
    labels = np.where(chosen, tokens, IGNORED)
    what, anything = rng.random(len(tokens)), rng.integers(vocabulary, size=len(tokens))
    seen = np.where(chosen & (what < HIDDEN), mask_token, tokens)
    return np.where(chosen & (what >= HIDDEN) & (what < HIDDEN + REPLACED), anything, seen), labels


def fixed_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that no text has, and that are never to be guessed."""
    found = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    return [int(token) for token in found if isinstance(token, int)]


def mask_token_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The number of [MASK]. Raises UserError for a tokenizer without one."""
    if not isinstance(tokenizer.mask_token_id, int):
        raise UserError("This tokenizer has no mask token: masked language modelling needs one.")
    return tokenizer.mask_token_id


def word_parts(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """For each token of the vocabulary whether it goes on with the word of the token before, bool [vocabulary].

    WordPiece says so by a prefix (``##s``), byte-level BPE by the lack of one (``Ġ``). Raises UserError for others.
    """
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens)
    pieces = any(token.startswith("##") for token in vocabulary)
    if not pieces and not any(token.startswith("Ġ") for token in vocabulary):
        raise UserError("task.whole_words=true: this tokenizer does not show in a token whether it begins a word.")
    found = np.zeros(max(vocabulary.values()) + 1, bool)
    for token, number in vocabulary.items():
        found[number] = token not in special and token.startswith("##") if pieces else token[:1] not in ("Ġ", "Ċ")
        found[number] &= token not in special
    return found
