"""The generated pairs: balanced, the same every time, train and validation apart, every word known."""

from __future__ import annotations

from collections import Counter

import pytest

from sparse_xp.synthetic.model import vocabulary
from sparse_xp.synthetic.pairs import pair_rows, pair_words, query_rows
from sparse_xp.synthetic.words import BAD, DISLIKED, GOOD, LIKED


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_as_many_of_each_label_and_the_same_every_time(split, classes):
    rows = pair_rows(split, 60, classes)
    assert Counter(rows["label"]) == dict.fromkeys(range(classes), 60 // classes)
    assert rows == pair_rows(split, 60, classes)
    assert rows != pair_rows(split, 60, classes, seed=1)
    assert pair_rows(split, 90, classes)["first"][:60] == rows["first"]


@pytest.mark.parametrize("classes", [2, 3])
def test_no_pair_is_in_both_splits(classes):
    train, validation = (pair_rows(split, 400, classes) for split in ("train", "validation"))
    assert not set(zip(train["first"], train["second"], strict=True)) & set(
        zip(validation["first"], validation["second"], strict=True)
    )


def test_the_label_is_what_the_sentences_say():
    for first, second, label in zip(*pair_rows("train", 300, 3).values(), strict=True):
        good = bool(set(first.split()) & set(GOOD))
        assert good != bool(set(first.split()) & set(BAD))
        liked, disliked = (bool(set(second.split()) & set(words)) for words in (LIKED, DISLIKED))
        assert label == (1 if not liked and not disliked else 0 if good == liked else 2)


def test_a_query_has_documents_that_follow_from_it_and_others():
    rows = query_rows("train", 300)
    assert Counter(Counter(rows["query"]).values()) == {6: 50}
    assert rows == query_rows("train", 300) != query_rows("train", 300, seed=1)
    assert query_rows("train", 100)["second"] == rows["second"][:100]
    assert {sum(rows["label"][begin : begin + 6]) for begin in range(0, 300, 6)} == {1, 2}
    for first, second, label in zip(rows["first"], rows["second"], rows["label"], strict=True):
        good = bool(set(first.split()) & set(GOOD))
        liked, disliked = (bool(set(second.split()) & set(words)) for words in (LIKED, DISLIKED))
        assert label == (good == liked != disliked)


def test_no_query_is_in_both_splits():
    train, validation = (set(query_rows(split, 600)["first"]) for split in ("train", "validation"))
    assert len(train) == len(validation) == 100
    assert train.isdisjoint(validation)
    with pytest.raises(ValueError, match="split='test'"):
        query_rows("test", 5)


def test_the_vocabulary_has_every_word():
    known = set(vocabulary(pair_words()))
    rows, queries = pair_rows("train", 500, 3), query_rows("train", 500)
    texts = [text for each in (rows, queries) for name in ("first", "second") for text in each[name]]
    assert {word for text in texts for word in text.split()} <= known


@pytest.mark.parametrize(("split", "classes", "message"), [("test", 2, "split='test'"), ("train", 4, "classes=4")])
def test_refusals(split, classes, message):
    with pytest.raises(ValueError, match=message):
        pair_rows(split, 5, classes)
