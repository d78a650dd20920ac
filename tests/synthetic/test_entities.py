"""Generated sentences with entities: the same everywhere, in no split twice, and not solvable word by word."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from sparse_xp.metrics.scores import entity_scores
from sparse_xp.synthetic.entities import KINDS, NAMES, NOISE, entity_rows, tagged_words
from sparse_xp.synthetic.model import vocabulary


def test_the_first_rows_are_these_on_every_machine():
    rows = entity_rows("validation", 2)
    assert rows["id"] == ["0", "1"]
    assert [" ".join(tokens) for tokens in rows["tokens"]] == [
        "nobody knew gresham for the beaches , but on the hill they chose chester for the loans .",
        "the price of steel rose on the hill .",
    ]
    assert [" ".join(tags) for tags in rows["ner_tags"]] == [
        "O O B-LOC O O O O O O O O O O B-ORG O O O O",
        "O O O O O O O O O",
    ]


def test_deterministic_and_a_prefix_of_more():
    assert entity_rows("train", 50) == entity_rows("train", 50)
    assert {name: values[:20] for name, values in entity_rows("train", 50).items()} == entity_rows("train", 20)
    assert entity_rows("train", 50, seed=1) != entity_rows("train", 50)


def test_splits_share_no_sentence():
    train, held = (
        {" ".join(tokens) for tokens in entity_rows(*arguments)["tokens"]}
        for arguments in (("train", 3000), ("validation", 800))
    )
    assert not train & held
    with pytest.raises(ValueError, match="split='test'; expected one of train, validation"):
        entity_rows("test", 1)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_tags_are_whole_entities(split):
    rows = entity_rows(split, 500)
    for tokens, tags in zip(rows["tokens"], rows["ner_tags"], strict=True):
        assert len(tokens) == len(tags)
        for before, tag in zip(["O", *tags], tags, strict=False):
            assert tag == "O" or tag[2:] in KINDS
            assert tag[0] != "I" or before in (f"B-{tag[2:]}", tag)
    begun = Counter(tag[2:] for tags in rows["ner_tags"] for tag in tags if tag[0] == "B")
    assert all(150 < begun[kind] < 310 for kind in KINDS)  # 500 sentences of two, less the plain ones, in four kinds


def test_words_around_names_are_found_outside_of_entities_too():
    tags_of = defaultdict(set)
    rows = entity_rows("train", 2000)
    for tokens, tags in zip(rows["tokens"], rows["ner_tags"], strict=True):
        for token, tag in zip(tokens, tags, strict=True):
            tags_of[token].add(tag)
    assert all({f"B-{kind}" for kind in KINDS} <= tags_of[name] for name in NAMES)
    for word in ("hope", "mark", "rose", "will", "new", "royal", "first", "grand", "little", "steel"):
        assert "O" in tags_of[word], word
        assert len(tags_of[word]) > 1, word


def test_the_commonest_tag_of_each_word_is_not_enough():
    train, held = entity_rows("train", 1536), entity_rows("validation", 384)
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for tokens, tags in zip(train["tokens"], train["ner_tags"], strict=True):
        for token, tag in zip(tokens, tags, strict=True):
            seen[token][tag] += 1
    guess = [[seen[token].most_common(1)[0][0] if seen[token] else "O" for token in row] for row in held["tokens"]]
    assert entity_scores(guess, held["ner_tags"])["f1"] < 50


def wrong_tags(split: str, rows: int) -> tuple[int, int]:
    """Of the names that only one kind has, how many there are and how many have the tag of another kind."""
    own = {name: kind for kind, group in KINDS.items() for name in group["names"]}
    made = entity_rows(split, rows)
    tagged = [
        (own[token], tag[2:])
        for tokens, tags in zip(made["tokens"], made["ner_tags"], strict=True)
        for token, tag in zip(tokens, tags, strict=True)
        if token in own
    ]
    return len(tagged), sum(kind != told for kind, told in tagged)


def test_one_name_in_a_few_training_sentences_has_a_wrong_tag_and_none_in_evaluation():
    names, wrong = wrong_tags("train", 4000)
    assert wrong / names == pytest.approx(NOISE / 2, abs=0.008)  # of the two names of a sentence one
    names, wrong = wrong_tags("validation", 1000)
    assert names > 200
    assert wrong == 0


def test_every_word_is_in_the_vocabulary():
    known = set(vocabulary(tagged_words()))
    assert set(tagged_words()) <= known
    used = {token for split in ("train", "validation") for row in entity_rows(split, 3000)["tokens"] for token in row}
    assert used <= known
    assert set(tagged_words()) <= used  # and no word is in the vocabulary for nothing
