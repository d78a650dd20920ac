"""Tags of words: sub-words, truncation, tags that are numbers or names, and what a prediction scores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value

from sparse_xp.data.batches import collate
from sparse_xp.errors import UserError
from sparse_xp.models.source import resolve_checkpoint
from sparse_xp.models.tokenizers import load_tokenizer
from sparse_xp.modifiers.distillation import distillation_loss
from sparse_xp.settings import Data
from sparse_xp.tasks import TokenClassification, all_generated_words
from sparse_xp.tasks.answers import NamedText
from sparse_xp.tasks.features import make_features
from sparse_xp.tasks.rows import load_rows
from sparse_xp.tasks.token_classification import first_tokens, joined_words
from tests.families import FAMILIES, TOKENIZERS
from tests.runs import configure
from tests.tiny import make_tokenizer

TOKENIZER = make_tokenizer()
CLASSES = ["O", "B-PET", "I-PET", "B-HAT", "I-HAT"]
#: a mirror of the real data set, whose text must not be copied
REAL = Path(os.environ.get("SPARSE_XP_DATA", "no/mirror"))


def make_task(**changes: Any) -> TokenClassification:
    fields: dict[str, Any] = {"name": "toy", "dataset": "toy", "folder": "toy", "tags": "tags", "classes": CLASSES}
    return TokenClassification(**fields | changes)


#: "dogs" is two sub-words, dog ##s, and "Red-mat" three
ROWS = {"tokens": [["The", "dogs", "sat", "."], ["Red-mat"]], "tags": [[0, 1, 2, 0], [3]]}


@pytest.mark.parametrize("train", [True, False])
def test_the_first_sub_word_of_each_word_has_its_label(train):
    assert make_task().features(ROWS, TOKENIZER, 0, train) == {
        "input_ids": [[2, 8, 9, 10, 12, 18, 3], [2, 14, 1, 15, 3]],  # "-" is no word of the tokenizer
        "token_type_ids": [[0] * 7, [0] * 5],
        "attention_mask": [[1] * 7, [1] * 5],
        "labels": [[-100, 0, 1, -100, 2, 0, -100], [-100, 3, -100, -100, -100]],
        "words": [[-1, 0, 1, -1, 2, 3, -1], [-1, 0, -1, -1, -1]],
        "unseen": [0, 0],
    }


def test_tags_by_name_are_the_same_as_by_number():
    named = ROWS | {"tags": [["O", "B-PET", "I-PET", "O"], ["B-HAT"]]}
    assert make_task().features(named, TOKENIZER, 0, True) == make_task().features(ROWS, TOKENIZER, 0, True)


def test_a_batch_is_padded_with_labels_that_the_loss_leaves_out():
    task = make_task()
    features = Dataset.from_dict(task.features(ROWS, TOKENIZER, 0, train=True))
    batch = collate(features, [0, 1], ["input_ids", "attention_mask", "labels"], task.padding)
    assert batch["labels"].tolist()[1] == [-100, 3, -100, -100, -100, -100, -100]
    assert task.token_mask(batch).tolist() == [[True] * 7, [True] * 5 + [False] * 2]
    assert task.class_mask(batch) is None


def test_distillation_looks_at_no_padding():
    batch = {"attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    mask = make_task().token_mask(batch)
    before = distillation_loss(student, teacher, 2.0, tokens=mask)
    student[1, 2], teacher[1, 2] = 50.0, -50.0
    teacher[1, 2, 0] = 90.0
    assert distillation_loss(student, teacher, 2.0, tokens=mask) == before
    assert distillation_loss(student, teacher, 2.0) > before


def test_words_past_max_length_are_cut_off():
    rows = {"tokens": [["cat"] * 9, ["cat"]], "tags": [[1] * 9, [1]]}
    task = make_task(max_length=8)
    features = task.features(rows, TOKENIZER, 0, train=False)
    assert features["input_ids"][0] == [2, *[11] * 6, 3]
    assert features["words"][0] == [-1, 0, 1, 2, 3, 4, 5, -1]
    assert features["unseen"] == [3, 0]
    made = Dataset.from_dict(features)
    [remark] = task.warnings(made, train=False)
    assert remark == (
        "task toy: 1 of 2 evaluation rows have words without a token within task.max_length=8, 3 in all; "
        "these count as tagged O"
    )
    assert "2 training rows" in task.warnings(made, train=True)[0]
    assert "are not learnt from" in task.warnings(made, train=True)[0]
    assert task.warnings(made.select([1]), train=True) == []


def test_a_word_that_is_cut_off_counts_as_tagged_o():
    # All 9 words are pets, each one an entity; 6 of them are seen and found.
    rows = Dataset.from_dict({"tokens": [["cat"] * 9], "tags": [[1] * 9]})
    task = make_task(max_length=8)
    features = Dataset.from_dict(task.features(rows[:], TOKENIZER, 0, train=False))
    pets = np.tile(np.eye(5)[1], (8, 1))
    scores = task.score(rows, features, {"logits": [pets]})
    assert scores == {name: pytest.approx(value) for name, value in {
        "f1": 80.0, "precision": 100.0, "recall": 100 * 6 / 9, "accuracy": 100 * 6 / 9,
    }.items()}  # fmt: skip


def test_a_word_without_a_token_keeps_the_others_in_their_places():
    rows = {"tokens": [["cat", "\u200b", "dogs", ""]], "tags": [[1, 0, 3, 0]]}
    features = make_task().features(rows, TOKENIZER, 0, train=False)
    assert features["words"] == [[-1, 0, 2, -1, -1]]
    assert features["labels"] == [[-100, 1, 3, -100, -100]]
    assert features["unseen"] == [2]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_a_row_without_words_is_not_trained_on_but_scored(order):
    rows = {"tokens": [[], ["cat"], ["hat"]], "tags": [[], [1], [3]]}
    rows = {name: [values[i] for i in order] for name, values in rows.items()}
    task = make_task()
    assert task.features(rows, TOKENIZER, 0, train=True)["input_ids"] == [[2, 11, 3], [2, 17, 3]]
    features = task.features(rows, TOKENIZER, 0, train=False)
    assert sorted(features["input_ids"]) == [[2, 3], [2, 11, 3], [2, 17, 3]]
    found = [np.eye(5)[[label if label > 0 else 0 for label in labels]] for labels in features["labels"]]
    assert task.score(Dataset.from_dict(rows), Dataset.from_dict(features), {"logits": found})["f1"] == 100.0


@pytest.mark.parametrize("by_name", [False, True])
def test_a_perfect_prediction_scores_100(by_name):
    rows = Dataset.from_dict(ROWS if not by_name else ROWS | {"tags": [["O", "B-PET", "I-PET", "O"], ["B-HAT"]]})
    task = make_task()
    features = Dataset.from_dict(task.features(rows[:], TOKENIZER, 0, train=False))
    # What is said of special tokens and of further sub-words, HAT here, does not count.
    found = [np.eye(5)[[4 if label < 0 else label for label in labels]] for labels in features["labels"]]
    assert task.score(rows, features, {"logits": found}) == {
        "f1": 100.0, "precision": 100.0, "recall": 100.0, "accuracy": 100.0,
    }  # fmt: skip


@pytest.mark.parametrize("tag", [5, -1, None, 0.5, "B-CAR", "pet"])
def test_a_tag_outside_the_classes_is_an_error_that_names_row_and_classes(tag):
    rows = {"tokens": [["cat"], ["cat", "sat"]], "tags": [[0], [0, tag]]}
    message = rf"task toy: row 1001 has the tag {tag!r} in tags, but task\.classes names 5: O, B-PET, I-PET, B-HAT"
    with pytest.raises(UserError, match=message):
        make_task().features(rows, TOKENIZER, 1000, train=True)


def test_words_and_tags_must_be_as_many():
    rows = {"tokens": [["cat", "sat"]], "tags": [[0]]}
    with pytest.raises(UserError, match=r"task toy: row 7 has 2 tokens and 1 tags; expected one tag for each"):
        make_task().features(rows, TOKENIZER, 7, train=True)


def rows_of(tags: list[list[Any]], names: list[str] | None = None) -> Dataset:
    made = {"tokens": [["cat"] * len(row) for row in tags], "tags": tags}
    if names is None:
        return Dataset.from_dict(made)
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=names))})
    return Dataset.from_dict(made, features=features)


def test_classes_come_from_the_names_of_the_data_in_their_order():
    names = ["O", "I-HAT", "B-HAT"]
    assert make_task(classes=[]).with_labels_from(rows_of([[0, 2, 1]], names)).label_names == names
    make_task(classes=names).check_labels(rows_of([[0, 2, 1]], names))


def test_classes_come_from_the_tags_of_the_rows_each_type_with_both_places():
    task = make_task(classes=[]).with_labels_from(rows_of([["O", "B-PET"], ["I-HAT"], []]))
    assert task.label_names == ["O", "B-HAT", "I-HAT", "B-PET", "I-PET"]


def test_classes_that_are_given_stay():
    for rows in (rows_of([[1, 2]]), rows_of([["B-PET"]])):
        assert make_task().with_labels_from(rows).label_names == CLASSES
        make_task().check_labels(rows)


@pytest.mark.parametrize(
    ("classes", "tags", "names", "message"),
    [
        (CLASSES, [[0]], ["O", "B-HAT", "I-HAT"], r"task\.classes is \['O', 'B-PET'.* has \['O', 'B-HAT', 'I-HAT'\]"),
        ([], [[0, 3], [1]], None, r"column tags has numbers \(0 to 3\) without names: name them with task\.classes"),
        ([], [["O", "noun"]], None, r"column tags has the tag 'noun', which is none of the BIO scheme"),
        ([], [[0]], ["noun", "verb"], r"column tags of the data: 'noun' is no class of the BIO scheme"),
        ([], [["O"]], None, r"column tags of the data: O; expected O, .* and others"),
    ],
)
def test_data_whose_classes_cannot_be_used(classes, tags, names, message):
    with pytest.raises(UserError, match=rf"task toy: {message}"):
        make_task(classes=classes).with_labels_from(rows_of(tags, names)).check_labels(rows_of(tags, names))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ["O", "pet"]}, r"task\.classes: 'pet' is no class of the BIO scheme: expected O, and B-TYPE"),
        ({"classes": ["O", "B-PET", "B-PET"]}, r"task\.classes: the class B-PET is named twice"),
        ({"classes": ["B-PET", "I-PET"]}, r"task\.classes: B-PET, I-PET; expected O, for words outside"),
        ({"classes": ["O"]}, r"task\.classes: O; expected O, .* and others"),
        ({"tokens": "x", "tags": "x"}, r"task\.tokens=x and task\.tags=x name the same column"),
        ({"metric": "presicion"}, r"task\.metric='presicion': expected one of f1, .*Did you mean 'precision'"),
        ({"max_length": 4}, r"task\.max_length=4: expected at least 8"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        make_task(**fields)


# Generated rows


@pytest.mark.parametrize("split", ["train", "validation"])
def test_generated_rows_have_the_columns_and_tags_of_the_task(split):
    task = configure("task=conll2003").task
    rows = task.generated_rows(split, 40)
    assert list(rows) == ["tokens", "ner_tags"]
    assert {tag for tags in rows["ner_tags"] for tag in tags} == set(range(9))
    task.features(
        rows, load_tokenizer(resolve_checkpoint(configure("profile=embedded").model, Path("models"))), 0, train=True
    )


def test_generated_rows_for_a_task_with_other_types():
    task = make_task(tokens="text", classes=["B-DRUG", "I-DRUG", "B-GENE", "O"])
    own = make_task(classes=[]).generated_rows("train", 60)["tags"]
    types = ("PER", "LOC", "ORG", "MISC")
    assert {tag for tags in own for tag in tags} == {"O", *(f"{place}-{name}" for place in "BI" for name in types)}
    stands_for = {"B-PER": 0, "I-PER": 1, "B-LOC": 2}  # the first two kinds; I-GENE is no class
    made = task.generated_rows("train", 60)
    assert list(made) == ["text", "tags"]
    assert made["tags"] == [[stands_for.get(tag, 3) for tag in tags] for tags in own]


# The real data set


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "conll2003").is_dir(), reason="needs SPARSE_XP_DATA=DIR with DIR/conll2003/*.parquet")
def test_features_of_the_real_data_set(tmp_path):
    task = configure("task=conll2003").task
    tokenizer = load_tokenizer(resolve_checkpoint(configure("profile=embedded").model, tmp_path))
    # as the shared task published them
    for train, rows_there, words_there, entities_there in (
        (True, 14_041, 203_621, 23_499),
        (False, 3_250, 51_362, 5_942),
    ):
        loaded = load_rows(task, Data(root=str(REAL)), train=train)
        task.check_labels(loaded.rows)  # the classes stand in the data set's order
        features = make_features(
            task, loaded.rows, loaded.fingerprint, tokenizer, Data(cache=str(tmp_path)), train=train
        )
        assert len(loaded.rows) == len(features) == rows_there
        labels = [label for row in features["labels"] for label in row if label >= 0]
        assert len(labels) + sum(features["unseen"]) == words_there
        assert task.warnings(features, train) == []
        assert sum(label in (1, 3, 5, 7) for label in labels) == entities_there


def test_of_how_many_answers_a_metric_is_the_mean():
    from datasets import Dataset

    task = configure("task=conll2003", "profile=embedded", "task.classes=[O,B-PER,I-PER]").task
    rows = Dataset.from_dict({task.tokens: [["a", "b", "c"], ["d", "e"]], task.tags: [[1, 2, 1], [0, 1]]})
    assert task.answer_count("accuracy", rows, rows) == 5
    assert [task.answer_count(name, rows, rows) for name in ("f1", "precision", "recall")] == [3] * 3
    inside = Dataset.from_dict({task.tokens: [["a", "b", "c", "d"]], task.tags: [[2, 2, 0, 2]]})  # IOB1 has few B-
    assert task.answer_count("f1", inside, inside) == 2


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm_roberta", "albert", "deberta_v3", "modernbert", "mpnet"])
def test_words_become_the_tokens_that_they_have_in_running_text(family):
    """Byte-level BPE and SentencePiece count the blank before a word as a part of it."""
    tokenizer = TOKENIZERS[FAMILIES[family].tokenizer](all_generated_words(), family)
    words = ["Anna", "Smith", "lives", "in", "New-York", ".", "Ünder", "🙂", "the", "two words", ")"]
    rows = {"tokens": [words], "tags": [[0] * len(words)]}
    features = make_task(max_length=96).features(rows, tokenizer, 0, train=True)
    assert features["input_ids"] == [tokenizer(" ".join(words))["input_ids"]]
    assert [word for word in features["words"][0] if word >= 0] == list(range(len(words)))
    assert features["unseen"] == [0]
    row = make_task().encode_row([NamedText("tokens", words)], tokenizer.backend_tokenizer, 96)
    assert row.encodings[0].ids == features["input_ids"][0]
    tags = make_task().word_tags(row, {"logits": [np.eye(5)[[max(word, 0) % 5 for word in features["words"][0]]]]})
    assert [tag for tag, _ in tags] == [CLASSES[number % 5] for number in range(len(words))]


def test_first_tokens_by_hand():
    text, spans = joined_words(["a", "goat", "b"])
    assert (text, spans) == ("a goat b", [(0, 1), (2, 6), (7, 8)])
    # [CLS], ▁a, ▁ alone, go, at, ▁b, [SEP]
    offsets = [(0, 0), (0, 1), (1, 2), (2, 4), (4, 6), (6, 8), (0, 0)]
    assert first_tokens(text, spans, offsets) == [-1, 0, -1, 1, -1, 2, -1]
    assert first_tokens("", [], [(0, 0)]) == [-1]
    # a word of blanks alone has no token, and one with a blank inside begins once
    text, spans = joined_words(["", "x y", "z"])
    assert first_tokens(text, spans, [(0, 2), (2, 4), (4, 6)]) == [1, -1, 2]
