"""Rows out of documents, on sentences whose tokens say where they come from."""

from __future__ import annotations

import random

import pytest

from sparse_xp.tasks.segments import cut_longest, pack_documents, segment_pairs


def documents(count=20, sentences=12, seed=0):
    """Token 1000 * document + 10 * sentence + place."""
    rng = random.Random(seed)
    return [
        [[1000 * d + 10 * s + i for i in range(rng.randint(1, 9))] for s in range(rng.randint(1, sentences))]
        for d in range(1, count + 1)
    ]


def origin(tokens):
    return {token // 1000 for token in tokens}


def test_pairs_fit_and_come_from_where_the_label_says():
    given = documents()
    made = list(segment_pairs(given, 40, random.Random(3)))
    assert made
    for first, second, label in made:
        assert first
        assert second
        assert len(first) + len(second) <= 40
        assert len(origin(first)) == len(origin(second)) == 1
        assert (origin(first) == origin(second)) == (label == 0)
        if label == 0:  # the second goes on where the first, unless it was cut, ended
            assert second[0] > first[-1]
    labels = [label for *_, label in made]
    assert 0.4 < sum(labels) / len(labels) < 0.8


def test_a_document_of_one_sentence_has_a_foreign_successor():
    given = [[[1000 * d, 1000 * d + 1]] for d in range(1, 12)]
    assert {label for *_, label in segment_pairs(given, 40, random.Random(0), random_next=0.0)} == {1}


def test_without_random_successors_every_token_is_used_once():
    given = [document for document in documents() if len(document) > 1]
    made = list(segment_pairs(given, 10_000, random.Random(0), short=0.0, random_next=0.0))
    assert [[*a, *b] for a, b, _ in made] == [[t for s in document for t in s] for document in given]


def test_what_a_foreign_segment_displaces_is_used_again():
    given = [[[1000 * d + 10 * s + i for i in range(4)] for s in range(10)] for d in range(1, 12)]
    made = list(segment_pairs(given, 20, random.Random(0), short=0.0, random_next=1.0))
    for d, document in enumerate(given, 1):
        told = [token for first, *_ in made for token in first if token // 1000 == d]
        assert told == [token for sentence in document for token in sentence]


def test_short_rows():
    given = [[[1000 * d + s] for s in range(100)] for d in range(1, 200)]
    long = list(segment_pairs(given, 50, random.Random(0), short=0.0, random_next=0.0))
    assert {len(a) + len(b) for a, b, _ in long} == {50}
    short = list(segment_pairs(given, 50, random.Random(0), short=1.0, random_next=0.0))
    lengths = [len(a) + len(b) for a, b, _ in short]
    assert min(lengths) < 10
    assert sum(lengths) / len(lengths) < 40


def test_the_same_seed_gives_the_same_pairs():
    one, other = (list(segment_pairs(documents(), 30, random.Random(5))) for _ in range(2))
    assert one == other != list(segment_pairs(documents(), 30, random.Random(6)))


def test_one_document_is_refused():
    with pytest.raises(ValueError, match="two at least"):
        list(segment_pairs([[[1]]], 30, random.Random(0)))


@pytest.mark.parametrize(
    ("one", "other", "length", "kept"),
    [
        (9, 3, 10, (7, 3)),
        (3, 9, 10, (3, 7)),
        (9, 9, 10, (5, 5)),
        (9, 9, 11, (6, 5)),
        (4, 4, 10, (4, 4)),
        (5, 6, 10, (5, 5)),
    ],
)
def test_the_longer_is_cut_at_its_end(one, other, length, kept):
    """Token by token from the longer, from the second in a tie."""
    first, second = cut_longest(list(range(one)), list(range(other)), length)
    assert (first, second) == (list(range(kept[0])), list(range(kept[1])))
    a, b = one, other
    while a + b > length:
        a, b = (a - 1, b) if a > b else (a, b - 1)
    assert (a, b) == kept


def test_rows_of_whole_sentences():
    assert list(pack_documents([[[1, 2], [3], [4, 5, 6]], [[7]]], 5, 0)) == [[1, 2, 0, 3], [4, 5, 6], [7]]
    assert list(pack_documents([[[1, 2, 3, 4, 5, 6, 7]]], 3, 0)) == [[1, 2, 3], [4, 5, 6], [7]]
    assert list(pack_documents([], 3, 0)) == []
