"""Files of questions: right, or an error that names the row and the column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from sparse_xp.data.table import to_dataset
from sparse_xp.errors import UserError
from sparse_xp.settings import Data
from sparse_xp.tasks import QuestionAnswering
from sparse_xp.tasks.rows import LoadedSplit, load_rows
from tests.question_files import draw_files
from tests.tiny import make_tokenizer

CONTEXT = "It was Ada."
ASKED = {"question": "Who?", "context": CONTEXT, "answers": {"text": ["Ada"], "answer_start": [7]}}
TASKS = {
    v2: QuestionAnswering(
        name="mine", dataset=None, folder="mine", max_length=32, doc_stride=4, version_2_with_negative=v2
    )
    for v2 in (False, True)
}


def load(
    name: str, contents: str | bytes | list[Any] | dict[str, Any], v2: bool = False, train: bool = True
) -> LoadedSplit:
    text = contents if isinstance(contents, str | bytes) else json.dumps(contents)
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_rows(TASKS[v2], Data(train=name, validation=name), train)


@pytest.mark.parametrize("seed", range(4))
def test_any_file_is_read_or_refused_in_words(seed):
    tokenizer, read, messages = make_tokenizer(), 0, []
    for name, contents in draw_files(seed, 60):
        for v2, train in ((False, True), (True, True), (True, False)):
            try:
                rows = to_dataset(load(name, contents, v2, train).rows)
                TASKS[v2].features(rows[:], tokenizer, 0, train)
            except UserError as error:
                messages.append((name, str(error)))
                continue
            read += 1
            for context, answers in zip(rows["context"], rows["answers"], strict=True):
                assert len(answers["text"]) == len(answers["answer_start"])
                for text, start in [*zip(answers["text"], answers["answer_start"], strict=True)][:1] if train else ():
                    assert context[start : start + len(text)] == text
    assert read > 10
    assert [told for name, told in messages if name not in told and "task.max_length" not in told] == []


@pytest.mark.parametrize(
    ("rows", "v2", "message"),
    [
        (
            [ASKED, {**ASKED, "answers": "Ada"}],
            False,
            "t.json: column 'answers' is not of one type in all rows: row 1 ",
        ),
        ([{**ASKED, "answers": "Eve"}], False, "t.json, row 0, column answers: the answer 'Eve' without answer_start"),
        ([ASKED, {**ASKED, "answers": None}], False, "t.json, row 1, column answers: the question has no answer."),
        (
            [{**ASKED, "is_impossible": True}],
            True,
            "t.json, row 0, column answers: the answer 'Ada', and is_impossible",
        ),
        ([{**ASKED, "is_impossible": "maybe"}], True, "t.json, row 0, column is_impossible: 'maybe', expected true or"),
        ([ASKED, {**ASKED, "question": " "}], False, "t.json, row 1 has an empty text in column question"),
        ([ASKED, {**ASKED, "context": ""}], False, "t.json, row 1 has an empty text in column context"),
        ([ASKED, {**ASKED, "question": None}], False, "t.json, row 1 has nothing in column question"),
        ([{"id": "a", **ASKED}, ASKED], False, "t.json, row 1 has nothing in column id"),
        ([{"id": "a", **ASKED}] * 2, False, "two rows have the id 'a': t.json, row 0, and t.json, row 1, column id"),
    ],
)
@pytest.mark.parametrize("train", [True, False])
def test_what_is_wrong_is_named(rows, v2, message, train):
    with pytest.raises(UserError) as error:
        load("t.json", rows, v2, train)
    assert message in str(error.value)


def test_lines_are_named_where_a_format_has_them():
    lines = "\n\n".join(json.dumps(row) for row in (ASKED, {**ASKED, "answers": {"text": []}}))
    with pytest.raises(
        UserError, match=r"t\.jsonl, line 3, column answers: the question has no answer\..*task\.version"
    ):
        load("t.jsonl", lines)


def test_questions_without_an_answer_are_for_a_task_that_has_them():
    impossible = {**ASKED, "answers": []}
    assert load("t.json", [impossible], v2=True).rows["answers"] == [{"text": [], "answer_start": []}]
    assert load("t.json", [ASKED], v2=True).rows["answers"] == [ASKED["answers"]]


def nested(*questions: dict[str, Any]) -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": "T", "paragraphs": [{"context": CONTEXT, "qas": list(questions)}]}]}


def test_the_nested_layout_with_and_without_parts():
    who = {"question": "Who?", "answers": [{"text": "Ada", "answer_start": 7}]}
    when = {
        "question": "When?",
        "is_impossible": True,
        "answers": [],
        "plausible_answers": [{"text": "It", "answer_start": 0}],
    }
    rows = load("t.json", nested(who, when), v2=True).rows
    assert rows["id"] == ["0", "1"]
    assert rows["answers"] == [ASKED["answers"], {"text": [], "answer_start": []}]
    assert rows["title"] == ["T", "T"]
    assert load("t.json", nested({"question": "Who?", "answers": ["Ada"]})).rows["answers"] == [ASKED["answers"]]
    assert load("t.json", nested({"id": "q", **who, "is_impossible": False})).rows["id"] == ["q"]
    with pytest.raises(UserError, match="article 0 has a part without 'question'"):
        load("t.json", nested({"answers": []}))


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("question,context,answers", "Who?,It was Ada.,\"{'text': ['Ada'], 'answer_start': [7]}\""),
        ("question,context,answers", 'Who?,It was Ada.,"{""text"": [""Ada""], ""answer_start"": [7]}"'),
        ("question,context,answers", "Who?,It was Ada.,Ada"),
        ("question,context,answers,answer_start", "Who?,It was Ada.,Ada,7"),
        ("question,context,answers,answer_start", "Who?,It was Ada.,Ada,7.0"),
    ],
)
def test_answers_in_cells(header, row):
    assert load("t.csv", f"{header}\n{row}\n").rows["answers"] == [ASKED["answers"]]


@pytest.mark.parametrize(
    "answers",
    [
        pyarrow.array([{"text": ["Ada"], "answer_start": [7.0]}]),
        pyarrow.array([{"text": ["Ada"], "answer_start": [7]}]).cast(
            pyarrow.struct(
                {"text": pyarrow.large_list(pyarrow.string()), "answer_start": pyarrow.list_(pyarrow.int32())}
            )
        ),
        pyarrow.array([[{"text": "Ada", "answer_start": 7}]]),
        pyarrow.array(["Ada"]).dictionary_encode(),
    ],
)
def test_answers_in_parquet(answers):
    columns = {"question": ["Who?"], "context": [CONTEXT], "answers": answers}
    pyarrow.parquet.write_table(pyarrow.table(columns), "t.parquet")
    loaded = load("t.parquet", Path("t.parquet").read_bytes())
    assert to_dataset(loaded.rows)["answers"][0] == ASKED["answers"]


def test_a_wrong_position_is_mended_and_said():
    """As JavaScript counts, a character beyond the basic plane is two."""
    context = "\U0001f600 It was Ada."
    loaded = load("t.json", [{**ASKED, "context": context, "answers": {"text": ["Ada"], "answer_start": [10]}}])
    assert loaded.rows["answers"] == [{"text": ["Ada"], "answer_start": [9]}]
    [warning] = loaded.warnings
    assert "1 of 1 training answers do not stand where answer_start says" in warning


def test_a_wrong_position_is_named_with_its_line():
    table = "question,context,answers,answer_start\nWho?,It was Ada.,Ada,7\nWho?,It was Ada.,Ada,6\nWho?,No.,Ada,6\n"
    moved, lost = load("t.csv", table).warnings
    assert "(the first: line 3, id 1)" in moved
    assert "(the first: line 4, id 2)" in lost


def test_the_names_of_the_columns_in_mid_file():
    table = "question,context,answers\nWho?,It was Ada.,Ada\nquestion,context,answers\n"
    with pytest.raises(UserError, match=r"t\.csv, line 3: the names of the columns once more"):
        load("t.csv", table)
