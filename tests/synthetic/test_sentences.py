"""Generated data: the same everywhere, with exact offsets, and no row in both splits; a checkpoint that is stock."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from sparse_xp.functional.sparsity import measure_sparsity
from sparse_xp.synthetic.model import build_checkpoint, vocabulary
from sparse_xp.synthetic.sentences import (
    question_answering_rows,
    question_words,
    review_words,
    text_classification_rows,
)
from sparse_xp.synthetic.words import GOOD, LIKED

VOCABULARY = vocabulary(question_words() + review_words())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny") / "sparse"
    build_checkpoint(directory, VOCABULARY, sparsity=0.8)
    return directory


def test_the_first_rows_are_these_on_every_machine():
    row = {name: values[0] for name, values in question_answering_rows("validation", 1).items()}
    assert row == {
        "id": "validation-0",
        "title": "Vance",
        "context": "Vance played a harp and wrote to Aunt Elsa. Then Vance ate lemon jam, went to Florence and steered "
        "a bicycle.",
        "question": "Which road vehicle was hired by Vance?",
        "answers": {"text": ["bicycle", "a bicycle"], "answer_start": [101, 99]},
    }
    assert text_classification_rows("train", 2)["sentence"] == [
        "lovers of bright films rather booed it on the screen .",
        "lovers of heartfelt films rather adored it .",
    ]


@pytest.mark.parametrize("make", [question_answering_rows, text_classification_rows])
def test_deterministic_and_a_prefix_of_more(make):
    assert make("train", 50) == make("train", 50)
    assert {name: values[:20] for name, values in make("train", 50).items()} == make("train", 20)
    assert make("train", 50, seed=1) != make("train", 50)


def test_answers_are_where_they_are_said_to_be():
    for split in ("train", "validation"):
        rows = question_answering_rows(split, 400)
        assert list(rows) == ["id", "title", "context", "question", "answers"]
        assert len(set(rows["id"])) == 400
        for context, answers in zip(rows["context"], rows["answers"], strict=True):
            assert len(answers["text"]) == len(answers["answer_start"]) >= 1
            for text, start in zip(answers["text"], answers["answer_start"], strict=True):
                assert context[start : start + len(text)] == text
        assert {len(answers["text"]) for answers in rows["answers"]} == ({1} if split == "train" else {1, 2})


def test_splits_share_no_row():
    train, held = question_answering_rows("train", 1500), question_answering_rows("validation", 400)
    assert not set(zip(train["context"], train["question"], strict=True)) & set(
        zip(held["context"], held["question"], strict=True)
    )
    assert not set(text_classification_rows("train", 1500)["sentence"]) & set(
        text_classification_rows("validation", 400)["sentence"]
    )


def test_classes_are_balanced_and_right():
    for split in ("train", "validation"):
        made = text_classification_rows(split, 400)
        assert made["label"] == [0, 1] * 200
        for sentence, label, rating in zip(made["sentence"], made["label"], made["rating"], strict=True):
            words = set(sentence.split())
            never = "never" in words
            liked = bool(words & set(LIKED)) != never
            assert label == (bool(words & set(GOOD)) == liked)
            assert rating in ((2, 3) if never else (0, 1, 4, 5))
            assert label == (rating > 2)


def test_every_word_is_in_the_vocabulary(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert len(VOCABULARY) == len(set(VOCABULARY)) == len(tokenizer)
    texts = text_classification_rows("train", 500)["sentence"]
    rows = question_answering_rows("train", 500)
    for text in {*texts, *rows["context"], *rows["question"]}:
        tokens = tokenizer.tokenize(text)
        assert not [token for token in tokens if token == "[UNK]" or token.startswith("##")], text
    assert "[UNK]" not in tokenizer.tokenize("Any other text, 1984!")


def test_checkpoint_is_sparse_per_tensor_and_loads_as_stock(checkpoint):
    model = AutoModelForQuestionAnswering.from_pretrained(checkpoint)
    report = measure_sparsity(model)
    assert len(report.layers) == 12
    for name, share in report.layers.items():
        numbers = model.get_parameter(name).numel()
        assert share == round(0.8 * numbers) / numbers


def test_same_arguments_same_bytes(checkpoint, tmp_path):
    state, python = torch.get_rng_state(), random.getstate()
    build_checkpoint(tmp_path / "again", VOCABULARY, sparsity=0.8)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    for path in checkpoint.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    build_checkpoint(tmp_path / "dense", VOCABULARY)
    dense, sparse = load_file(tmp_path / "dense/model.safetensors"), load_file(checkpoint / "model.safetensors")
    for name, weight in sparse.items():
        assert torch.equal(weight[weight != 0], dense[name][weight != 0])
