"""Tags of the BIO scheme, worked out by hand."""

from __future__ import annotations

import pytest

from sparse_xp.tasks.bio import entity_words


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("O O O", []),
        ("B-PER I-PER O", [("PER", [0, 1])]),
        ("B-PER B-PER I-PER", [("PER", [0]), ("PER", [1, 2])]),
        ("I-PER I-LOC I-LOC", [("PER", [0]), ("LOC", [1, 2])]),
        ("I-PER O I-PER", [("PER", [0]), ("PER", [2])]),
    ],
)
def test_words_of_one_entity_are_joined(tags, entities):
    assert [(kind, list(words)) for kind, words in entity_words(tags.split())] == entities
