"""Pretraining: from documents to features, masks that follow seed, epoch and row, and scores worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from sparse_xp.errors import UserError
from sparse_xp.settings import Data
from sparse_xp.tasks import PairPretraining, Pretraining
from sparse_xp.tasks.base import IGNORED
from sparse_xp.tasks.features import make_features, rows_at_once
from tests.runs import configure
from tests.tiny import WORDS, make_tokenizer

TEXT = "The dog sat on the red mat. Who sat in the hat? The cat sat."
TOKENIZER = make_tokenizer()


def task(kind=PairPretraining, **more):
    return kind(name="text", dataset=None, folder="text", **{"max_length": 16, **more})


def features(kind=Pretraining, texts=(TEXT,), train=True, first=0, **more):
    return task(kind, **more).features({"text": list(texts)}, TOKENIZER, first, train)


def words(tokens):
    return " ".join(WORDS[token] for token in tokens)


def test_a_document_becomes_rows_of_whole_sentences():
    made = features()
    assert [words(row) for row in made["input_ids"]] == [
        "[CLS] the dog sat on the red mat . [SEP]",
        "[CLS] who sat in the hat ? [SEP] the cat sat . [SEP]",
    ]
    assert {"labels", "next_sentence_label"}.isdisjoint(made)
    assert [list(mask) for mask in made["attention_mask"]] == [[1] * 10, [1] * 13]


def test_lines_and_empty_lines_are_white_space():
    assert [words(r) for r in features(texts=["The dog\n\n  sat. \n", "", "\n"])["input_ids"]] == [
        "[CLS] the dog sat . [SEP]"
    ]


def test_pairs():
    made = features(PairPretraining, [TEXT] * 12, short_rows=0.0)
    for tokens, kinds, label in zip(
        made["input_ids"], made["token_type_ids"], made["next_sentence_label"], strict=True
    ):
        said = words(tokens)
        assert len(tokens) <= 16
        assert said.count("[SEP]") == 2
        assert said.endswith("[SEP]")
        assert kinds.tolist() == [0] * (list(tokens).index(3) + 1) + [1] * (len(tokens) - list(tokens).index(3) - 1)
        assert label in (0, 1)


def test_few_documents_and_models_without_segments_are_refused():
    with pytest.raises(UserError, match="9 documents; pairs of segments need 10"):
        features(PairPretraining, [TEXT] * 9)
    other = make_tokenizer()
    other.model_input_names = ["input_ids", "attention_mask"]
    with pytest.raises(UserError, match="wikipedia_mlm"):
        task().features({"text": [TEXT] * 10}, other, 0, True)
    assert "token_type_ids" not in task(Pretraining).features({"text": [TEXT]}, other, 0, True)


def test_evaluation_rows_are_masked_once_and_for_all():
    one, other = (features(train=False, texts=[TEXT] * 5) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one["input_ids"], other["input_ids"], strict=True))
    assert len({tuple(labels) for labels in one["labels"]}) > 3  # each row has its own masks
    plain = features(texts=[TEXT] * 5)
    for seen, labels, was in zip(one["input_ids"], one["labels"], plain["input_ids"], strict=True):
        assert (np.where(labels == IGNORED, seen, labels) == was).all()
    assert any(
        (a != b).any()
        for a, b in zip(one["labels"], features(train=False, texts=[TEXT] * 5, first=7)["labels"], strict=True)
    )


def masked_batch(rows, seed, **more):
    width = 6
    tokens = torch.tensor([[2, 5 + row % 10, 6, 7, 3, 0] for row in rows])
    batch = {"input_ids": tokens, "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0]]).expand(len(rows), width)}
    return task(Pretraining, mlm_probability=0.5, **more).apply_dynamic_masking(batch, rows, seed, TOKENIZER)


def test_masks_depend_on_seed_and_row_and_on_nothing_else():
    one, alone = masked_batch([3, 8, 5], 11), masked_batch([8], 11)
    assert torch.equal(one["input_ids"][1], alone["input_ids"][0])
    assert torch.equal(one["labels"][1], alone["labels"][0])
    every, again = masked_batch(range(50), 11), masked_batch(range(50), 12)
    assert not torch.equal(every["labels"], again["labels"])
    assert (every["labels"][:, 5] == IGNORED).all()
    assert (every["labels"][:, 0] == IGNORED).all()
    assert ((every["labels"] != IGNORED).sum(1) >= 1).all()


def test_scores_worked_out_by_hand():
    """Two masked tokens: one guessed with probability 3/4, one missed with 1/4."""
    here = task(Pretraining)
    rows = Dataset.from_dict({"labels": [[IGNORED, 1, IGNORED], [0, IGNORED, IGNORED]]})
    logits = np.log(np.array([[[0.5, 0.5]] * 3, [[0.25, 0.75]] * 3]))
    logits[0, 1] = np.log([0.25, 0.75])
    kept = [here.unpad("logits", logits[row], 3, rows, row) for row in range(2)]
    assert [each.shape for each in kept] == [(1, 2), (1, 2)]
    loss = -(np.log(0.75) + np.log(0.25)) / 2
    assert here.score(rows, rows, {"logits": kept}) == pytest.approx(
        {"accuracy": 50.0, "mlm_loss": loss, "perplexity": np.exp(loss)}
    )


def test_next_sentences_are_scored():
    here = task()
    rows = Dataset.from_dict({"labels": [[1]] * 4, "next_sentence_label": [0, 1, 1, 0]})
    kept = [here.unpad("prediction_logits", np.zeros((1, 2)), 1, rows, i) for i in range(4)]
    said = [np.array(pair) for pair in ([2, 1], [0, 1], [1, 0], [1, 0])]
    scores = here.score(rows, rows, {"prediction_logits": kept, "seq_relationship_logits": said})
    assert scores["nsp_accuracy"] == 75.0
    assert scores["perplexity"] == pytest.approx(2.0)


def test_batches_of_documents_are_of_like_size(tmp_path):
    assert [rows_at_once(rows) for rows in (5, 1000, 1007, 2501)] == [5, 1000, 1007, 834]
    assert rows_at_once(4000, workers=4) == 1000
    rows = Dataset.from_dict({"text": [TEXT] * 1003})
    made = make_features(task(), rows, "here", TOKENIZER, Data(cache=str(tmp_path)), train=True)
    assert len(made) > 1003
    assert made.features["input_ids"].feature.dtype == "int32"
    assert made.features["attention_mask"].feature.dtype == "int8"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layout": "wikitexts"}, "Did you mean 'wikitext'"),
        ({"mlm_probability": 0}, "task.mlm_probability=0"),
        ({"metric": "f1"}, "task.metric='f1': expected accuracy"),
        ({"random_next": 2}, "task.random_next=2"),
    ],
)
def test_impossible_values_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        task(**fields)


def test_generated_documents_differ_between_splits():
    here = task()
    train, held = here.generated_rows("train", 200)["text"], here.generated_rows("validation", 50)["text"]
    assert len(train) == 200
    assert len(held) == 50
    assert not set(train) & set(held)
    with pytest.raises(ValueError, match="split"):
        here.generated_rows("test", 1)


def test_every_generated_word_is_in_the_vocabulary():
    import re

    from sparse_xp.synthetic.model import vocabulary

    known = set(vocabulary(Pretraining.generated_words()))
    for text in task().generated_rows("train", 300)["text"]:
        assert set(re.findall("[a-z]+", text.lower())) <= known


def test_of_how_many_answers_a_metric_is_the_mean():
    from datasets import Dataset

    features = Dataset.from_dict({"labels": [[-100, 7, -100], [8, 9, -100]], "next_sentence_label": [0, 1]})
    task = configure("task=wikipedia", "profile=embedded").task
    names = ("accuracy", "nsp_accuracy", "mlm_loss", "perplexity")
    assert [task.answer_count(name, features, features) for name in names] == [3, 2, None, None]
