"""Masks: how many, of what, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from sparse_xp.errors import UserError
from sparse_xp.tasks.masking import IGNORED, fixed_tokens, mask_token_of, mask_tokens, word_parts
from tests.tiny import WORDS, make_tokenizer

MASK = 4


def masked(tokens, share=0.15, seed=0, continues=None, fixed=(2, 3), vocabulary=1000):
    tokens = np.asarray(tokens)
    rng = np.random.default_rng(seed)
    return mask_tokens(tokens, ~np.isin(tokens, fixed), rng, share, MASK, vocabulary, continues)


def test_shares_of_a_long_row():
    tokens = np.full(200_000, 500)
    seen, labels = masked(tokens)
    chosen = labels != IGNORED
    assert chosen.mean() == pytest.approx(0.15, abs=0.005)
    assert (labels[chosen] == 500).all()
    assert (seen[~chosen] == 500).all()
    assert (seen[chosen] == MASK).mean() == pytest.approx(0.8, abs=0.01)
    assert (seen[chosen] == 500).mean() == pytest.approx(0.1, abs=0.01)
    others = seen[chosen & (seen != MASK) & (seen != 500)]
    assert len(others) / chosen.sum() == pytest.approx(0.1, abs=0.01)
    assert others.min() >= 0
    assert others.max() < 1000
    assert len(set(others)) > 900


def test_what_no_text_has_is_never_masked():
    seen, labels = masked([2, 7, 8, 3, 9, 3], share=0.99)
    assert [seen[i] for i in (0, 3, 5)] == [2, 3, 3]
    assert [labels[i] for i in (0, 3, 5)] == [IGNORED] * 3
    seen, labels = masked([2, 3], share=0.99)
    assert list(seen) == [2, 3]
    assert list(labels) == [IGNORED, IGNORED]


def test_one_token_at_least():
    for seed in range(20):
        assert (masked([2, 7, 8, 3], share=1e-6, seed=seed)[1] != IGNORED).sum() == 1


def test_whole_words():
    continues = np.array([False, False, True, True, False, False])
    for seed in range(50):
        _, labels = masked([2, 7, 8, 9, 10, 3], share=0.4, seed=seed, continues=continues)
        assert len(set((labels[1:4] != IGNORED).tolist())) == 1


def test_the_same_seed_gives_the_same():
    one, other = masked(range(5, 105), seed=[42, 7]), masked(range(5, 105), seed=[42, 7])
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert (masked(range(5, 105), seed=[42, 8])[1] != one[1]).any()


def test_what_a_tokenizer_says():
    tokenizer = make_tokenizer()
    assert sorted(fixed_tokens(tokenizer)) == [0, 2, 3]
    assert mask_token_of(tokenizer) == MASK
    parts = word_parts(tokenizer)
    assert [word for word, part in zip(WORDS, parts, strict=True) if part] == ["##s"]


def test_a_tokenizer_without_marks_or_masks_is_refused():
    from tokenizers import Tokenizer, models

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")))
    with pytest.raises(UserError, match="mask token"):
        mask_token_of(plain)
    with pytest.raises(UserError, match="whole_word_mask"):
        word_parts(plain)
