"""Rows from a mirror, from files, held out, mended: nothing lost unsaid, errors with their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from sparse_xp.data.corpus import read_corpus
from sparse_xp.data.readers import read_file
from sparse_xp.data.table import to_dataset
from sparse_xp.errors import UserError
from sparse_xp.files.text_format import TextFormat
from sparse_xp.settings import Data
from sparse_xp.tasks import QuestionAnswering, TextClassification, TokenClassification
from sparse_xp.tasks.rows import load_rows


def sentences(rows: int) -> dict[str, list[Any]]:
    return {"sentence": [f"sentence {i}" for i in range(rows)], "label": [i % 2 for i in range(rows)]}


def named(rows: int) -> dict[str, list[Any]]:
    """The sentences with the names of their classes."""
    return sentences(rows) | {"label": [["bad", "good"][i % 2] for i in range(rows)]}


def make_task(**changes: Any) -> TextClassification:
    fields: dict[str, Any] = {"name": "sst2", "dataset": "glue", "folder": "glue_sst2", "classes": ["bad", "good"]}
    return TextClassification(**fields | changes)


@pytest.fixture
def mirror(tmp_path) -> Data:
    folder = tmp_path / "mirror" / "glue_sst2"
    folder.mkdir(parents=True)
    Dataset.from_dict(sentences(20)).to_parquet(folder / "train.parquet")
    Dataset.from_dict(sentences(6)).to_parquet(folder / "validation.parquet")
    return Data(root=str(tmp_path / "mirror"))


def test_rows_come_from_the_split_of_a_local_mirror(mirror):
    train = load_rows(make_task(), mirror, train=True).rows
    evaluation = load_rows(make_task(), mirror, train=False).rows
    assert to_dataset(train).to_dict() == named(20)
    assert to_dataset(evaluation).to_dict() == named(6)


def test_a_missing_file_is_an_error_that_lists_what_is_there(mirror):
    with pytest.raises(UserError, match=r"no file .*glue_sst2/dev\.parquet.* has: train\.parquet, validation\.parquet"):
        load_rows(make_task(eval_split="dev"), mirror, train=False)


def test_a_missing_folder_is_an_error_that_lists_the_folders(mirror):
    with pytest.raises(UserError, match=r"no file .*/sst/train\.parquet.* has: glue_sst2\.$"):
        load_rows(make_task(folder="sst"), mirror, train=True)


def test_a_missing_root_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no file .*nowhere/glue_sst2/train\.parquet.* has: no such directory"):
        load_rows(make_task(), Data(root=str(tmp_path / "nowhere")), train=True)


def test_a_wrong_column_is_an_error_that_names_the_nearest(mirror):
    message = r"has no column 'sentences'\. Did you mean 'sentence'\? It has sentence, label; .* task\.text=COLUMN"
    with pytest.raises(UserError, match=message):
        load_rows(make_task(text="sentences"), mirror, train=True)


def test_a_file_that_was_cut_off_is_an_error_that_names_it(mirror):
    path = Path(str(mirror.root)) / "glue_sst2" / "train.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"glue_sst2/train\.parquet is not a parquet file"):
        load_rows(make_task(), mirror, train=True)


def test_no_rows_are_an_error(mirror):
    Dataset.from_dict(sentences(1)).select([]).to_parquet(Path(str(mirror.root)) / "glue_sst2" / "train.parquet")
    with pytest.raises(UserError, match=r"task sst2: glue_sst2/train\.parquet.* has no rows"):
        load_rows(make_task(), mirror, train=True)


def test_a_hub_that_does_not_answer_is_an_error_that_names_the_ways_around_it(monkeypatch):
    def unreachable(*arguments, **keywords):
        raise ConnectionError("Couldn't reach 'glue' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    message = r"Could not load data set glue/sst2 \(split train\)[\s\S]*data\.root=DIR.*profile=embedded"
    with pytest.raises(UserError, match=message):
        load_rows(make_task(subset="sst2"), Data(), train=True)


def test_a_subset_is_the_same_every_time_and_in_the_order_of_the_rows(mirror):
    task = make_task(max_train_samples=7, max_eval_samples=2)
    first = load_rows(task, mirror, train=True).rows
    torch.manual_seed(5)
    second = load_rows(task, mirror, train=True).rows
    numbers = [int(text.split()[1]) for text in first["sentence"]]
    assert len(numbers) == 7
    assert numbers == sorted(set(numbers))
    assert numbers != list(range(7))  # drawn, not the head of the file
    assert list(second["sentence"]) == list(first["sentence"])
    assert len(load_rows(task, mirror, train=False).rows) == 2


@pytest.mark.parametrize("limit", [20, 21, None])
def test_a_limit_beyond_the_rows_takes_them_all_as_they_are(mirror, limit):
    loaded = load_rows(make_task(max_train_samples=limit), mirror, train=True)
    assert to_dataset(loaded.rows).to_dict() == named(20)
    assert loaded.total == 20


def test_the_fingerprint_of_the_rows_follows_their_content_and_number(mirror):
    def fingerprint(**changes: Any) -> str:
        return load_rows(make_task(**changes), mirror, train=True).fingerprint

    whole, some = fingerprint(), fingerprint(max_train_samples=7)
    assert fingerprint() == whole
    assert fingerprint(max_train_samples=20) == whole
    changed = sentences(20) | {"label": [1] * 20}
    Dataset.from_dict(changed).to_parquet(Path(str(mirror.root)) / "glue_sst2" / "train.parquet")
    assert len({whole, some, fingerprint(), fingerprint(max_train_samples=7)}) == 4


def test_several_splits_follow_each_other_and_are_named(mirror):
    task = make_task(eval_split="validation+train", max_eval_samples=3)
    loaded = load_rows(task, mirror, train=False)
    assert loaded.rows["split"] == ["validation"] * 3 + ["train"] * 3
    assert loaded.total == 26
    assert loaded.fingerprint != load_rows(make_task(eval_split="train+validation"), mirror, train=False).fingerprint


# Held out


def test_a_data_set_of_one_split_is_cut_in_two(mirror):
    task = make_task(eval_split="train", validation_share=0.2)
    train, evaluation = (load_rows(task, mirror, train=which) for which in (True, False))
    assert (len(train.rows), len(evaluation.rows)) == (16, 4)
    assert not set(train.rows["sentence"]) & set(evaluation.rows["sentence"])
    assert sorted(evaluation.rows["label"]) == ["bad", "bad", "good", "good"]
    assert train.fingerprint != evaluation.fingerprint


def test_a_share_too_small_for_a_row_is_an_error(mirror):
    with pytest.raises(UserError, match="held out leaves no rows"):
        load_rows(make_task(eval_split="train", validation_share=0.001), mirror, train=False)


# Files


def text_task(**changes: Any) -> TextClassification:
    return TextClassification(**{"name": "mine", "dataset": None, "folder": "mine", "text": "text"} | changes)


def qa_task(**changes: Any) -> QuestionAnswering:
    return QuestionAnswering(**{"name": "mine", "dataset": None, "folder": "mine"} | changes)


def write(path: Path, text: str) -> Data:
    path.write_text(text, encoding="utf-8")
    return Data(train=str(path), validation=str(path))


QUESTION = {"question": "Who?", "context": "It was Ada.", "answers": {"text": ["Ada"], "answer_start": [7]}}
RECORDS = [{"text": "a b", "label": 1}, {"text": 'say "c", d', "label": 0}]
LABELLED = [{"text": "a b", "label": "1"}, {"text": 'say "c", d', "label": "0"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", json.dumps(RECORDS)),
        ("t.json", json.dumps({"version": "1", "data": RECORDS})),
        ("t.json", "\n".join(map(json.dumps, RECORDS))),
        ("t.jsonl", "\n".join(map(json.dumps, RECORDS)) + "\n\n"),
        ("t.ndjson", "\ufeff" + "\n".join(map(json.dumps, RECORDS))),
        ("t.csv", 'text,label\na b,1\n"say ""c"", d",0\n'),
        ("t.tsv", 'text\tlabel\r\na b\t1\r\n"say ""c"", d"\t0\r\n'),
    ],
)
def test_the_same_rows_from_every_layout(tmp_path, name, text):
    loaded = load_rows(text_task(), write(tmp_path / name, text), train=True)
    assert loaded.rows.to_list() == LABELLED


def test_rows_from_parquet(tmp_path):
    Dataset.from_list(RECORDS).to_parquet(tmp_path / "t.parquet")
    assert read_file(tmp_path / "t.parquet").to_list() == RECORDS


def test_the_nested_layout_of_squad(tmp_path):
    text = {
        "data": [
            {
                "title": "T",
                "paragraphs": [
                    {
                        "context": "It was Ada.",
                        "id": "p1",
                        "qas": [
                            {"id": "q1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 7}]},
                            {
                                "id": "q2",
                                "question": "When?",
                                "is_impossible": True,
                                "answers": [],
                                "plausible_answers": [{"text": "It", "answer_start": 0}],
                            },
                        ],
                    }
                ],
            }
        ]
    }
    task = qa_task(version_2_with_negative=True)
    loaded = load_rows(task, write(tmp_path / "dev.json", json.dumps(text)), train=True)
    assert loaded.rows["id"] == ["q1", "q2"]
    assert loaded.rows["answers"] == [QUESTION["answers"], {"text": [], "answer_start": []}]
    assert loaded.rows["title"] == ["T", "T"]
    del text["data"][0]["paragraphs"][0]["context"]
    with pytest.raises(UserError, match="article 0 has a part without 'context'"):
        load_rows(qa_task(), write(tmp_path / "dev.json", json.dumps(text)), train=True)


def test_rows_without_an_id_are_numbered(tmp_path):
    loaded = load_rows(qa_task(), write(tmp_path / "t.json", json.dumps({"data": [QUESTION, QUESTION]})), train=True)
    assert loaded.rows["id"] == ["0", "1"]


def test_two_questions_with_one_id(tmp_path):
    rows = [{"id": "a", **QUESTION}] * 2
    with pytest.raises(UserError, match="two rows have the id 'a'"):
        load_rows(qa_task(), write(tmp_path / "t.json", json.dumps(rows)), train=True)


CONLL = "-DOCSTART- -X- O O\n\nAda NNP B-NP B-PER\nspoke VBD B-VP O\n\n\nto TO B-PP O\nBari NNP B-NP B-LOC\n"


def test_conll_text(tmp_path):
    task = TokenClassification(name="mine", dataset=None, folder="mine", tags="tags")
    loaded = load_rows(task, write(tmp_path / "t.conll", CONLL), train=True)
    assert loaded.rows.to_list() == [
        {"tokens": ["Ada", "spoke"], "tags": ["B-PER", "O"]},
        {"tokens": ["to", "Bari"], "tags": ["O", "B-LOC"]},
    ]
    assert task.with_labels_from(loaded.rows).classes == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": }\n', r"t\.jsonl, line 2, column 24: no JSON"),
        ("t.jsonl", "[1]\n", r"t\.jsonl, line 1: expected an object with the columns, not a list"),
        ("t.json", '{"text": "a"}\n{"text" "b"}\n', r"t\.json, line 2, column 9: no JSON"),
        ("t.json", '[{"text": "a"},\n{"text" "b"}]', r"t\.json, line 2, column 9: no JSON"),
        ("t.json", '{"train": [{"text": "a"}], "test": []}', "an object of train, test: write a list of rows alone"),
        ("t.json", '{"text": {"0": "a"}}', "an object of text: pandas writes rows with .*orient='records'"),
        ("t.json", '{"text": "a", "label": 1}', r"an object of text, label: write \[ and \] around a single row"),
        ("t.json", '{"text": ["a"]}', "an object of text: write an object for each row"),
        ("t.json", '[{"text": "a"},]', r"line 1, column 16: no JSON .*Leave out the comma before the bracket"),
        ("t.json", '{"text": "a"},\n{"text": "b"}', r"Extra data\)\. Write \[ and \] around the rows"),
        ("t.json", "[{'text': 'a'}]", "Write texts and names in double quotes"),
        (
            "t.jsonl",
            '{"text": "a"},\n{"text": "b"}',
            r"line 1, column 14: .*Leave out the comma at the end of the line",
        ),
        ("t.jsonl", '[\n  {"text": "a"}\n]\n', r"line 1, column 2: .*name the file \.json"),
        ("t.jsonl", '{\n  "text": "a"\n}\n', r"line 1, column 2: .*name the file \.json"),
        ("t.json", '{"rows": []}', r'expected a list of rows, or \{"data": \[rows\]\}; it is an object'),
        ("t.json", "[1]", r"row 0 is a number"),
        ("t.json", "[]", r"t\.json has no rows"),
        (
            "t.json",
            '[{"text": "a", "label": 1}, {"text": 5, "label": [2]}]',
            r"column 'text' is not of one type .* row 1",
        ),
        ("t.csv", "text,label\na,1\nb,c,0\n", r"t\.csv, line 3: 3 fields, but the first line names 2 columns"),
        ("t.csv", 'text,label\n"a, b",1\n"a,1\n', r"t\.csv, line 3: unexpected end of data\. Close the quote"),
        ("t.csv", "text,text\na,1\n", r"t\.csv, line 1: two columns have the same name"),
        ("t.csv", "text,label\n", r"t\.csv has no rows"),
        ("t.csv", "", r"t\.csv has no rows"),
        ("t.conll", "Ada B-PER\nspoke\n", r"t\.conll, line 2: 'spoke' has no tag"),
        ("t.xlsx", "", r"unknown format '\.xlsx', expected one of \.json \.jsonl"),
        ("t.json", '[{"text": "a", "label": 1}, {"text": null, "label": 1}]', r"row 1 has nothing in column text"),
        ("t.json", '[{"text": "a", "lable": 1}]', r"has no column 'label'\. Did you mean 'lable'\?"),
        ("t.json", '[{"text": "a", "label": 1}, {"text": 5, "label": 0}]', "Write all its values as texts, or all as"),
        ("t.json", '[{"text": null, "label": 1}]', "row 0 has nothing in column text. Write a value, or leave the row"),
        ("t.csv", "te\u0301xt\na\n", r"has no column 'text'\. Did you mean 'te.xt'\?"),
        ("t.csv", "fine,1\nbad,0\n", r"mine: /.*/t\.csv has no column 'text'.*names are those of its first line"),
        ("t.tsv", "Ada\tB-PER\nspoke\tO\n", r"has no column 'text'.*name it \.conll"),
        ("t.txt", "fine\t1\nbad\t0\n", r"has no column 'text'.*read as CoNLL text.*name it \.csv or \.tsv"),
        ("t.txt", "good film,1\nbad,0\n", r"line 2: 'bad,0' has no tag.*name it \.csv or \.tsv"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        load_rows(text_task(), write(tmp_path / name, text), train=True)


@pytest.mark.parametrize(
    "values",
    [
        ("1", '"n/a"'),
        ("{}", "[]"),
        ("[1]", "1"),
        ("1", "99999999999999999999"),
        ('"\\ud83d"', "1"),
        ("[" * 50 + "]" * 50, "1"),
    ],
)
def test_a_column_that_no_task_reads_may_have_anything(tmp_path, values):
    lines = [f'{{"text": "a", "label": {i}, "other": {value}}}' for i, value in enumerate(values)]
    for name, text in [("t.jsonl", "\n".join(lines)), ("t.json", f"[{', '.join(lines)}]")]:
        loaded = load_rows(text_task(), write(tmp_path / name, text), train=True)
        assert [(row["text"], row["label"]) for row in loaded.rows.to_list()] == [("a", "0"), ("a", "1")]
        with pytest.raises(UserError, match=r"column.*other"):
            load_rows(text_task(text="other"), write(tmp_path / name, text), train=True)


def test_names_that_look_the_same_are_told_apart(tmp_path):
    data = write(tmp_path / "t.csv", "cafe\u0301,label\na,1\nb,0\n")
    with pytest.raises(UserError, match=r"has no column 'caf\u00e9'\. 'cafe\u0301' looks the same, .* form NFC"):
        load_rows(text_task(text="caf\u00e9"), data, train=True)


def test_a_column_that_is_read_if_it_is_there_is_of_one_type(tmp_path):
    rows = [QUESTION | {"answers": "Ada", "answer_start": start} for start in ([7], 7)]
    with pytest.raises(UserError, match="column 'answer_start' is not of one type"):
        load_rows(qa_task(), write(tmp_path / "t.json", json.dumps(rows)), train=True)


def test_words_for_nothing_are_texts_with_a_remark(tmp_path):
    data = write(tmp_path / "t.csv", "text,label\na,x\nNaN,NA\nb,NA\n")
    loaded = load_rows(text_task(), data, train=True)
    assert loaded.rows["text"] == ["a", "NaN", "b"]
    texts, labels = loaded.warnings
    assert f"{tmp_path}/t.csv, line 3: 'NaN' in column text is a text like others, as are 1 such of 3" in texts
    assert f"{tmp_path}/t.csv, line 3: 'NA' in column label is a text like others, as are 2 such of 3" in labels
    named_classes = load_rows(text_task(classes=["x", "NA"]), data, train=True)
    assert named_classes.warnings == [texts]


def test_text_that_is_not_utf_8(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"text,label\nfine,1\ncaf\xe9,0\n")
    with pytest.raises(UserError, match=r"t\.csv, line 3: not UTF-8"):
        load_rows(text_task(), Data(train=str(tmp_path / "t.csv")), train=True)


def test_a_file_that_is_not_there(tmp_path):
    write(tmp_path / "train.json", "[]")
    with pytest.raises(UserError, match=r"No file .*trian\.json\. Did you mean 'train\.json'\?"):
        load_rows(text_task(), Data(train=str(tmp_path / "trian.json")), train=True)


def test_a_task_without_a_data_set_says_how_to_give_one():
    with pytest.raises(UserError, match="task mine has no data set of its own: give"):
        load_rows(text_task(), Data(), train=True)


# Answers


def test_answers_that_do_not_stand_where_they_should_are_counted(tmp_path):
    rows = [
        QUESTION,
        {**QUESTION, "answers": {"text": ["Ada"], "answer_start": [2]}},
        {**QUESTION, "answers": {"text": ["Bob"], "answer_start": [7]}},
    ]
    data = write(tmp_path / "t.json", json.dumps(rows))
    loaded = load_rows(qa_task(), data, train=True)
    assert loaded.rows["answers"] == [QUESTION["answers"]] * 2
    moved, lost = loaded.warnings
    assert "1 of 3 training answers do not stand where answer_start says (the first: row 1, id 1)" in moved
    assert "1 of 3 training rows are left out, their text does not hold their answer (the first: row 2, id 2)" in lost
    assert load_rows(qa_task(), data, train=False).rows["answers"] == [row["answers"] for row in rows]


def test_no_answer_that_can_be_used(tmp_path):
    rows = [{**QUESTION, "answers": {"text": ["Bob"], "answer_start": [7]}}]
    with pytest.raises(UserError, match=r"has no rows that can be used\. task mine: 1 of 1 training rows are left out"):
        load_rows(qa_task(), write(tmp_path / "t.json", json.dumps(rows)), train=True)


def test_names_of_classes_come_with_the_data():
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = Dataset.from_dict({"sentence": ["a"], "label": [1]}, features=features)
    assert text_task(text="sentence").with_labels_from(rows).classes == ["no", "yes"]
    with pytest.raises(UserError, match=r"task.classes is \['yes', 'no'\], but column label of the data has"):
        text_task(text="sentence", classes=["yes", "no"]).check_labels(rows)


def test_options_of_text_files_reach_every_reader(tmp_path):
    (tmp_path / "t.csv").write_bytes("text~label\ncaf\u00e9~1\nb~0\n".encode("latin-1"))
    (tmp_path / "v.jsonl").write_text('{"text": "caf\u00e9", "label": 1}\n', encoding="latin-1")
    data = Data(train=str(tmp_path / "t.csv"), validation=str(tmp_path / "v.jsonl"), separator="~", encoding="latin-1")
    train = load_rows(text_task(), data, train=True)
    evaluation = load_rows(text_task(), data, train=False, labelled=train.task)
    assert (train.rows["text"], evaluation.rows["text"]) == (["caf\u00e9", "b"], ["caf\u00e9"])
    quoted = Data(**vars(data) | {"quoting": "none"})
    assert load_rows(text_task(), quoted, train=True).fingerprint != train.fingerprint
    with pytest.raises(UserError, match=r"data\.separator='~' means nothing for .*v\.jsonl"):
        load_rows(text_task(), Data(train=data.validation, separator="~"), train=True)
    (tmp_path / "t.txt").write_bytes("caf\u00e9\n".encode("latin-1"))
    documents = read_corpus(tmp_path / "t.txt", "text", tmp_path, text_format=TextFormat(encoding="latin-1"))
    assert documents["text"][:] == ["caf\u00e9"]
    with pytest.raises(UserError, match=r"data\.separator= means nothing for .*t\.txt, which has no columns"):
        read_corpus(tmp_path / "t.txt", "text", tmp_path, text_format=TextFormat(separator=","))
