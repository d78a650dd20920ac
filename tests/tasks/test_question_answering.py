"""From a context to windows, from an answer to tokens, and from logits back to the text of the context.

The numbers of the tokens are those of ``tests.tiny.WORDS``: [CLS] 2, [SEP] 3, "who" 5, "the" 8, "dog" 9, "##s" 10.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from sparse_xp.errors import UserError
from sparse_xp.metrics import scores
from sparse_xp.tasks import QuestionAnswering
from tests.runs import configure
from tests.tiny import make_tokenizer

TOKENIZER = make_tokenizer()

CONTEXT = "The dogs sat on the  red mat ."  # two blanks before "red"
TOKENS = ["the", "dog", "##s", "sat", "on", "the", "red", "mat", "."]


def make_task(**changes: Any) -> QuestionAnswering:
    fields: dict[str, Any] = {"name": "toy", "dataset": "toy", "folder": "toy", "max_length": 32, "doc_stride": 4}
    return QuestionAnswering(**fields | changes)


def answered(context: str, *texts: str) -> dict[str, Any]:
    return {"text": list(texts), "answer_start": [context.index(text) for text in texts]}


def make_rows(*rows: tuple[str, str, str]) -> Dataset:
    """Rows from (question, context, answer)."""
    return Dataset.from_dict(
        {
            "id": [f"q{i}" for i in range(len(rows))],
            "question": [question for question, _, _ in rows],
            "context": [context for _, context, _ in rows],
            "answers": [answered(context, answer) for _, context, answer in rows],
        }
    )


# Features


def test_training_features_of_one_window():
    rows = make_rows(("  Who sat?", CONTEXT, "dogs"))
    features = make_task().features(rows[:], TOKENIZER, 0, train=True)
    # [CLS] who sat ? [SEP] the dog ##s sat on the red mat . [SEP]
    assert features == {
        "input_ids": [[2, 5, 12, 19, 3, 8, 9, 10, 12, 13, 8, 14, 15, 18, 3]],
        "token_type_ids": [[0] * 5 + [1] * 10],
        "attention_mask": [[1] * 15],
        "start_positions": [6],
        "end_positions": [7],
    }


def test_evaluation_features_of_one_window():
    rows = make_rows(("Who sat?", CONTEXT, "dogs"))
    features = make_task().features(rows[:], TOKENIZER, 7, train=False)
    assert (features["row"], features["context_from"]) == ([7], [5])
    [offsets] = features["offsets"]
    assert [CONTEXT[start:end] for start, end in offsets] == [
        "The",
        "dog",
        "s",
        "sat",
        "on",
        "the",
        "red",
        "mat",
        ".",
    ]
    assert "start_positions" not in features


# "who" leaves 9 - 4 = 5 tokens for the context, of which 3 come again: windows from token 0, 2 and 4.
WINDOWS: dict[str, Any] = {"max_length": 9, "doc_stride": 3}


@pytest.mark.parametrize(
    ("answer", "expected"),  # [CLS] is 0; the context of a window begins at its token 3
    [
        ("The", [(3, 3), (0, 0), (0, 0)]),
        ("dogs", [(4, 5), (0, 0), (0, 0)]),  # the second window begins with "##s"
        ("sat on", [(6, 7), (4, 5), (0, 0)]),
        ("on", [(7, 7), (5, 5), (3, 3)]),
        ("dogs sat on the", [(0, 0), (0, 0), (0, 0)]),  # longer than any window
        ("the  red", [(0, 0), (6, 7), (4, 5)]),
        ("red mat .", [(0, 0), (0, 0), (5, 7)]),
    ],
)
def test_the_windows_of_a_long_context(answer, expected):
    rows = make_rows(("who", CONTEXT, answer))
    features = make_task(**WINDOWS).features(rows[:], TOKENIZER, 0, train=True)
    numbers = TOKENIZER.convert_tokens_to_ids
    assert features["input_ids"] == [
        numbers(["[CLS]", "who", "[SEP]", *TOKENS[start : start + 5], "[SEP]"]) for start in (0, 2, 4)
    ]
    assert list(zip(features["start_positions"], features["end_positions"], strict=True)) == expected


def test_the_windows_of_several_rows_know_their_row():
    rows = make_rows(("who", "the cat", "cat"), ("who", CONTEXT, "dogs"), ("who", "a hat", "hat"))
    features = make_task(**WINDOWS).features(rows[:], TOKENIZER, 100, train=False)
    assert features["row"] == [100, 101, 101, 101, 102]
    assert features["context_from"] == [3] * 5
    assert [len(offsets) for offsets in features["offsets"]] == [2, 5, 5, 5, 2]


@pytest.mark.parametrize(
    ("question", "fields"),
    [
        ("who " * 20, {"max_length": 16, "doc_stride": 4}),  # no room for any context
        ("who " * 8, {"max_length": 16, "doc_stride": 8}),  # room for 5 tokens, of which 8 should come again
    ],
)
def test_a_question_that_leaves_no_room_is_a_user_error(question, fields):
    rows = make_rows(("who", CONTEXT, "dogs"), (question, CONTEXT * 5, "dogs"))
    with pytest.raises(UserError, match=r"task\.max_length"):
        make_task(**fields).features(rows[:], TOKENIZER, 0, train=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_padding_changes_neither_loss_nor_gradient(dtype):
    """Positions of padding are no answers, whatever their logits."""
    lengths, width = [3, 5], 5
    logits = torch.randn(2, 2, width, generator=torch.Generator().manual_seed(0)).to(dtype)

    def loss_of(rows, width, garbage):
        padded = torch.full((2, len(rows), width), garbage, dtype=dtype)
        for i, row in enumerate(rows):
            padded[:, i, : lengths[row]] = logits[:, row, : lengths[row]]
        padded.requires_grad_()
        batch = {
            "input_ids": torch.zeros(len(rows), width, dtype=torch.long),
            "attention_mask": torch.stack([(torch.arange(width) < lengths[row]).long() for row in rows]),
            "start_positions": torch.tensor([2 - row for row in rows]),
            "end_positions": torch.tensor([2 + row for row in rows]),
        }
        outputs = make_task().forward(lambda **_: {"start_logits": padded[0], "end_logits": padded[1]}, batch)
        outputs["loss"].backward()
        assert not padded.grad[:, batch["attention_mask"] == 0].any()
        assert outputs["start_logits"].isfinite().all()
        return outputs["loss"].item()

    alone = [loss_of([0], 3, 0.0), loss_of([1], 5, 0.0)]
    expected = [
        sum(-logits[k, row, : lengths[row]].float().log_softmax(-1)[at] for k, at in enumerate((2 - row, 2 + row))) / 2
        for row in (0, 1)
    ]
    assert alone == pytest.approx([value.item() for value in expected], rel=1e-6)
    for width, garbage in ((5, 0.0), (9, 50.0), (12, -60000.0), (7, 60000.0)):
        assert loss_of([0, 1], width, garbage) == pytest.approx(sum(alone) / 2, rel=1e-6)


def test_the_distillation_mask_is_the_attention_mask():
    mask = make_task().class_mask({"attention_mask": torch.tensor([[1, 1, 0], [1, 0, 0]])})
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True, True, False], [True, False, False]]


# Scores


def peaked(task: QuestionAnswering, rows: Dataset) -> tuple[Dataset, dict[str, list[np.ndarray]]]:
    """The evaluation features, and logits that are 10 at the gold positions of each window that has them."""
    gold = task.features(rows[:], TOKENIZER, 0, train=True)
    features = Dataset.from_dict(task.features(rows[:], TOKENIZER, 0, train=False))
    outputs: dict[str, list[np.ndarray]] = {}
    for name, positions in (("start_logits", "start_positions"), ("end_logits", "end_positions")):
        outputs[name] = []
        for tokens, position in zip(gold["input_ids"], gold[positions], strict=True):
            logits = np.zeros(len(tokens), np.float32)
            logits[position] = 10.0  # on [CLS] it is no part of the context, and must not count
            outputs[name].append(logits)
    return features, outputs


@pytest.fixture
def predictions(monkeypatch) -> dict[str, str]:
    """The texts that were scored."""
    caught: dict[str, str] = {}
    original = scores.squad_scores

    def catch(texts, golds):
        caught.update(texts)
        return original(texts, golds)

    monkeypatch.setattr(scores, "squad_scores", catch)
    return caught


@pytest.mark.parametrize("fields", [{}, WINDOWS])
def test_a_perfect_prediction_scores_100(predictions, fields):
    rows = make_rows(
        ("who", CONTEXT, "dogs"),
        ("where", "In the hat the CAT sat .", "the hat"),
        ("what", CONTEXT, "the  red mat"),
        ("who", "A cat.", "A cat."),
        ("what", "What? A hat? " * 3 + "The mat!", "The mat"),
    )
    task = make_task(**fields)
    assert task.score(rows, *peaked(task, rows)) == {"exact_match": 100.0, "f1": 100.0}
    # Cut from the context as it is written: capitals, blanks and all.
    assert predictions == {"q0": "dogs", "q1": "the hat", "q2": "the  red mat", "q3": "A cat.", "q4": "The mat"}


def test_the_best_of_all_windows_is_the_answer(predictions):
    rows, task = make_rows(("who", CONTEXT, "mat")), make_task(**WINDOWS)
    features, outputs = peaked(task, rows)
    for logits in outputs.values():
        for values in logits:
            values[:] = 0.0
        logits[0][6] = 4.0  # "sat"
        logits[1][7] = 5.0  # "red"
        logits[2][3] = 4.5  # "on"
    assert task.score(rows, features, outputs)["f1"] == 0.0
    assert predictions == {"q0": "red"}


@pytest.mark.parametrize(("null_logits", "exact_match"), [([9.0, 1.0, 9.0], 100.0), ([9.0, 7.0, 9.0], 0.0)])
def test_the_null_score_is_the_lowest_of_all_windows(null_logits, exact_match):
    """As in SQuAD v2's reference code: one window that is sure of its span is enough for an answer."""
    rows, task = make_rows(("who", CONTEXT, "red")), make_task(**WINDOWS, version_2_with_negative=True)
    features, outputs = peaked(task, rows)
    for logits in outputs.values():
        for values, null in zip(logits, null_logits, strict=True):
            values[:], values[0] = 0.0, null  # [CLS], once as start and once as end
        logits[1][7] = 5.0  # "red": a span of 10
    assert task.score(rows, features, outputs)["exact_match"] == exact_match


def test_question_and_special_tokens_are_no_answers(predictions):
    rows, task = make_rows(("who", "the cat sat", "cat")), make_task()
    features, outputs = peaked(task, rows)
    for logits in outputs.values():
        logits[0][:] = [50, 60, 70, 1, 9, 1, 80]  # [CLS] who [SEP] the cat sat [SEP]
    assert task.score(rows, features, outputs)["exact_match"] == 100.0
    assert predictions == {"q0": "cat"}


def test_a_half_right_prediction(predictions):
    rows, task = make_rows(("who", "the red hat", "red hat"), ("who", "the cat", "cat")), make_task()
    features, outputs = peaked(task, rows)
    outputs["start_logits"][0][:] = [0, 0, 0, 0, 0, 9, 0]  # "hat" alone: precision 1, recall 1/2
    assert task.score(rows, features, outputs) == pytest.approx({"exact_match": 50.0, "f1": 100 * (2 / 3 + 1) / 2})
    assert predictions == {"q0": "hat", "q1": "cat"}


def test_an_answer_that_is_too_long_is_not_given(predictions):
    rows = make_rows(("who", CONTEXT, "dogs sat on the  red mat"))
    features, outputs = peaked(make_task(), rows)
    assert make_task(max_answer_length=7).score(rows, features, outputs)["f1"] == 100.0
    make_task(max_answer_length=6).score(rows, features, outputs)
    assert len(predictions["q0"]) < len("dogs sat on the  red mat")


def test_other_names_of_columns():
    rows = make_rows(("who", CONTEXT, "dogs")).rename_columns(
        {"id": "key", "question": "ask", "context": "text", "answers": "gold"}
    )
    task = make_task(id="key", question="ask", context="text", answers="gold")
    assert task.columns() == ["key", "ask", "text", "gold"]
    assert task.score(rows, *peaked(task, rows)) == {"exact_match": 100.0, "f1": 100.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"doc_stride": 32}, r"task\.doc_stride=32: expected 0 to task\.max_length=32"),
        ({"doc_stride": -1}, r"task\.doc_stride=-1"),
        ({"max_length": 7, "doc_stride": 2}, r"task\.max_length=7: expected at least 8"),
        ({"context": "question"}, r"task\.question=question and task\.context=question name the same column"),
        ({"n_best_size": 0}, r"task\.n_best_size"),
        ({"max_answer_length": 0}, r"task\.max_answer_length"),
        ({"metric": "accuracy"}, r"task\.metric='accuracy': expected one of f1, exact_match"),
        ({"max_train_samples": 0}, r"task\.max_train_samples=0: expected at least 1, or null"),
        ({"max_eval_samples": -5}, r"task\.max_eval_samples=-5"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        make_task(**fields)


def test_of_how_many_answers_a_metric_is_the_mean():
    from datasets import Dataset

    golds = [
        {"text": ["a"], "answer_start": [0]},
        {"text": [], "answer_start": []},
        {"text": ["b"], "answer_start": [0]},
    ]
    rows = Dataset.from_dict({"answers": golds})
    task = configure("task=squad_v2", "profile=embedded").task
    counts = {name: task.answer_count(name, rows, rows) for name in ("f1", "best_f1", "HasAns_f1", "NoAns_exact_match")}
    assert counts == {"f1": 3, "best_f1": 3, "HasAns_f1": 2, "NoAns_exact_match": 1}
