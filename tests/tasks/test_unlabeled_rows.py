"""Files of rows without labels: the texts of each format, whatever labels they have, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset

from sparse_xp.errors import UserError
from sparse_xp.settings import Data
from sparse_xp.tasks import QuestionAnswering, SentenceEmbedding, TextClassification, TokenClassification
from sparse_xp.tasks.rows import load_unlabeled
from tests.tiny import make_tokenizer

TEXTS = TextClassification(name="texts", dataset=None, text="sentence", classes=["bad", "good"])
PAIRS = TextClassification(name="pairs", dataset=None, text="one", text_pair="two", classes=["bad", "good"])
QUESTIONS = QuestionAnswering(name="questions", dataset=None, max_length=12, doc_stride=2)
EMBEDDED = SentenceEmbedding(name="embedded", dataset=None, prompt="the ")
WORDS = TokenClassification(name="words", dataset=None, classes=["O", "B-X", "I-X"])
TOKENIZER = make_tokenizer()


def load(task, name, content, **options):
    if isinstance(content, str):
        content = content.encode()
    Path(name).write_bytes(content)
    return load_unlabeled(task, Data(unlabeled=name, **options))


def lines(*rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def test_without_a_file_there_are_none():
    assert load_unlabeled(TEXTS, Data()) is None


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("u.txt", "the dog\n\n  \nthe cat \r\n", {}),
        ("u.txt", "the dog\nthe cat".encode("utf-16"), {}),
        ("u.jsonl", lines({"sentence": "the dog", "label": "never heard of"}, {"sentence": "the cat"}), {}),
        ("u.json", json.dumps([{"text": "the dog"}, {"text": "the cat"}]), {}),
        ("u.csv", "label,sentence,text\n,the dog,x\n-1,the cat,y\n", {}),
        ("u.csv", "label;text\n?;the dog\n?;the cat\n", {"separator": "semicolon"}),
        ("u.tsv", "sentence\nthe dog\nthe cat\n", {}),
    ],
)
def test_texts_of_every_format(tmp_path, name, content, options):
    """A text may be in the column of the task or in one called text. Labels of any kind are not looked at."""
    loaded = load(TEXTS, name, content, **options)
    assert loaded.rows.to_dict() == {"sentence": ["the dog", "the cat"]}
    assert (loaded.total, loaded.in_files) == (2, {name: 2})


def test_texts_of_parquet_whose_labels_are_classes():
    Dataset.from_dict({"sentence": ["the dog"], "label": [-1]}).to_parquet("u.parquet")
    assert load_unlabeled(TEXTS, Data(unlabeled="u.parquet")).rows.to_dict() == {"sentence": ["the dog"]}


def test_pairs_and_questions_have_two_columns():
    pairs = load(PAIRS, "u.jsonl", lines({"two": "b", "one": "a"}))
    assert pairs.rows.to_dict() == {"one": ["a"], "two": ["b"]}
    questions = load(QUESTIONS, "q.jsonl", lines({"question": "who", "context": "the dog", "answers": 7}))
    assert questions.rows.to_dict() == {"question": ["who"], "context": ["the dog"]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("u.txt", "the dog's hat.\n"),
        ("u.csv", "tokens,tags\n\"['the', \"\"dog's\"\", 'hat', '.']\",x\n"),
        ("u.jsonl", lines({"tokens": ["the", "dog's", "hat", "."], "ner_tags": ["O"]})),
        ("u.conll", "the O\ndog's B-X\nhat Q-X\n. O\n"),
    ],
)
def test_words_of_running_text_lists_and_conll(name, content):
    assert load(WORDS, name, content).rows.to_dict() == {"tokens": [["the", "dog's", "hat", "."]]}


@pytest.mark.parametrize(
    ("task", "name", "content", "message"),
    [
        (TEXTS, "u.txt", "\n \n", "u.txt has no rows."),
        (TEXTS, "u.txt", b"the\0dog", "u.txt, line 1"),
        (TEXTS, "u.txt", b"the dog\n\xff\xfe caf\xe9\n", "u.txt, line 2"),
        (TEXTS, "u.jsonl", lines({"sentence": "the dog"}) + '{"sentence": ', "u.jsonl, line 2"),
        (
            TEXTS,
            "u.jsonl",
            lines({"sentences": "the dog"}),
            "reads a column 'sentence' or 'text', and the file has sentences. Did",
        ),
        (TEXTS, "u.csv", "sentence,label\nthe dog,1\n  ,1\n", "u.csv, line 3: the text in column sentence is empty"),
        (TEXTS, "u.jsonl", lines({"sentence": "the dog"}, {"label": 1}), "line 2 has nothing in column sentence"),
        (TEXTS, "u.jsonl", lines({"sentence": 7}), "int64 in column sentence, expected texts"),
        (TEXTS, "u.pdf", "%PDF-1.4", "u.pdf"),
        (TEXTS, "u.parquet", "PAR1", "u.parquet"),
        (PAIRS, "u.txt", "a\nb\n", "a .txt file has one text a line, and task pairs reads one and two"),
        (PAIRS, "u.jsonl", lines({"one": "a"}), "task pairs reads a column 'two' or 'second', and the file has one."),
        (QUESTIONS, "u.txt", "who\n", "reads question and context"),
        (QUESTIONS, "u.jsonl", lines({"question": " ", "context": "a"}), "line 1 has an empty text in column question"),
        (WORDS, "u.txt", "the O\ndog B-X\n", "u.txt, line 1: this looks like CoNLL text"),
        (WORDS, "u.jsonl", lines({"tokens": ["a"]}, {"tokens": []}), "line 2: no word in column tokens"),
        (WORDS, "u.jsonl", lines({"tokens": ["a", ""]}), "line 1: word 1 in column tokens is ''"),
        (WORDS, "u.jsonl", lines({"words": ["a"]}), "reads a column 'tokens' or 'text', and the file has words."),
        (WORDS, "u.csv", "text\n \n", "line 2: no word in column text"),
    ],
)
def test_one_clear_error(task, name, content, message):
    with pytest.raises(UserError) as caught:
        load(task, name, content)
    assert message in str(caught.value)


def test_a_directory_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"is a directory: expected a file"):
        load_unlabeled(TEXTS, Data(unlabeled=str(tmp_path)))
    with pytest.raises(UserError, match=r"nowhere\.csv"):
        load_unlabeled(TEXTS, Data(unlabeled="nowhere.csv"))


def test_more_rows_than_allowed_are_refused():
    with pytest.raises(UserError, match=r"data\.max_rows"):
        load(TEXTS, "u.txt", "a\nb\nc\n", max_rows=2)


def test_options_of_text_are_for_the_files_that_have_them():
    Path("t.csv").write_text("sentence;label\na;bad\nb;good\n")
    for name in ("u.txt", "u.jsonl"):
        content = "a\n" if name == "u.txt" else lines({"sentence": "a"})
        assert load(TEXTS, name, content, train="t.csv", separator="semicolon").total == 1
    with pytest.raises(UserError, match=r"data\.separator= means nothing for u\.txt"):
        load(TEXTS, "u.txt", "a\n", separator="semicolon")


def test_the_fingerprint_follows_the_rows():
    first = load(TEXTS, "u.txt", "the dog\n").fingerprint
    assert load(TEXTS, "u.txt", "the dog\n").fingerprint == first
    assert load(TEXTS, "u.txt", "the cats\n").fingerprint != first


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        (TEXTS, {"sentence": ["the dog sat", "cats"], "label": ["bad", "good"]}),
        (EMBEDDED, {"text": ["the dog sat", "cats"]}),
        (PAIRS, {"one": ["the dog"], "two": ["a cat sat on the mat"], "label": ["bad"]}),
        (
            QUESTIONS,
            {
                "id": ["1"],
                "question": [" who sat?"],
                "context": ["the dog sat on the red mat in the hat. the cat sat in the hat."],
                "answers": [{"text": ["dog"], "answer_start": [4]}],
            },
        ),
        (WORDS, {"tokens": [["the", "dogs", "sat"], ["hat", "."]], "ner_tags": [["O", "B-X", "O"], ["O", "O"]]}),
    ],
    ids=["texts", "embedded", "pairs", "questions", "words"],
)
def test_inputs_are_those_of_rows_with_labels(task, rows):
    with_labels = task.features(rows, TOKENIZER, 0, True)
    texts = {name: rows[name] for names in task.text_names() for name in names[:1]}
    inputs = task.input_features(texts, TOKENIZER, 0)
    assert inputs == {name: with_labels[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    if task is QUESTIONS:
        assert len(inputs["input_ids"]) > 1  # windows of one context
