"""``python -m sparse_xp.predict``."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sparse_xp import Pipeline, predict
from sparse_xp.cli import run_command
from sparse_xp.data.readers import read_records
from sparse_xp.errors import UserError


def predicted(*words):
    return subprocess.run(
        [sys.executable, "-m", "sparse_xp.predict", *map(str, words)], capture_output=True, text=True, check=False
    )


def test_one_row_is_one_object(deployed):
    done = predicted(f"run={deployed('squad')}", "question=Who?", "context=Abbot met Aunt Ada.")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == ["score", "start", "end", "answer"]
    assert done.stderr == ""


def test_a_file_is_answered_row_by_row(deployed, tmp_path, capsys):
    rows = [{"sentence": f"a film {'of no worth ' * i}", "label": 0} for i in range(5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"model={deployed('sst2')}", f"file={tmp_path / 'rows.jsonl'}", "batch=2"]
    capsys.readouterr()  # the run may have been made just now
    predict.main([*words, f"out={tmp_path / 'out.jsonl'}"])
    told = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    wanted = Pipeline(deployed("sst2"))(rows)
    assert [each["label"] for each in told] == [each["label"] for each in wanted]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"5 rows in [\d.]+ s, [\d.]+ rows/s, errors=0\n", shown.err)
    predict.main([*words, "top=2"])
    assert [len(json.loads(line)["labels"]) for line in capsys.readouterr().out.splitlines()] == [2] * 5


def test_embeddings_are_lists_of_numbers(deployed, tmp_path, capsys):
    run, pipeline = f"run={deployed('embedding')}", Pipeline(deployed("embedding"))
    capsys.readouterr()
    predict.main([run, "text=a dull plot"])
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"embedding": pytest.approx(pipeline("a dull plot").tolist(), rel=1e-6, abs=1e-7)}
    assert len(line) < 64 * 18  # numbers of seven digits
    (tmp_path / "rows.csv").write_text("id,text\n7,a dull plot\n8,a great film\n")
    (tmp_path / "texts.txt").write_text("a dull plot\n\na great film\n")
    for name, own in (("rows.csv", ["id", "text"]), ("texts.txt", ["text"])):
        predict.main([run, f"file={tmp_path / name}"])
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [list(each) for each in told] == [[*own, "embedding"]] * 2
        assert [each["text"] for each in told] == ["a dull plot", "a great film"]
        wanted = pipeline(["a dull plot", "a great film"])
        assert [each["embedding"] for each in told] == [pytest.approx(row.tolist(), abs=1e-5) for row in wanted]
    (tmp_path / "texts.txt").write_text("\n")
    with pytest.raises(UserError, match=r"texts\.txt has no rows"):
        predict.main([run, f"file={tmp_path / 'texts.txt'}"])


CONTEXT = "Vance fed a goat."
QUESTIONS = {"data": [{"title": "T", "paragraphs": [{"context": CONTEXT, "qas": [{"id": "q1", "question": "Who?"}]}]}]}


@pytest.mark.parametrize(
    ("kind", "name", "text", "kept"),
    [
        (
            "sst2",
            "t.csv",
            'id,sentence,label,source\n007,a film,1,"a, b"\n',
            {"id": "007", "sentence": "a film", "input_label": "1", "source": "a, b"},
        ),
        (
            "sst2",
            "t.tsv",
            "sentence\tscore\tinput_score\na film\tx\ty\n",
            {"sentence": "a film", "input_input_score": "x", "input_score": "y"},
        ),
        (
            "sst2",
            "t.jsonl",
            '{"id": 1, "text": "a", "more": {"deep": [null, 1.5, "\\ud800"]}}\n',
            {"id": 1, "text": "a", "more": {"deep": [None, 1.5, "\ud800"]}},
        ),
        ("squad", "t.json", json.dumps(QUESTIONS), {"id": "q1", "title": "T", "question": "Who?", "context": CONTEXT}),
        ("conll2003", "t.conll", "Ada B-PER\n", {"tokens": ["Ada"], "tags": ["B-PER"]}),
        ("several", "t.jsonl", '{"text": "a", "labels": [1]}\n', {"text": "a", "input_labels": [1]}),
    ],
)
def test_a_line_has_the_columns_of_its_row(deployed, kind, name, text, kept):
    Path(name).write_text(text)
    predict.main([f"model={deployed(kind)}", f"file={name}", "out=out.jsonl"])
    [line] = lines_of("out.jsonl")
    [answer] = Pipeline(deployed(kind))(read_records(Path(name)))
    parts = list(answer) if isinstance(answer, dict) else [{"conll2003": "entities", "several": "labels"}[kind]]
    assert {column: value for column, value in line.items() if column not in parts} == kept
    assert list(line)[-len(parts) :] == parts


def test_the_columns_of_a_parquet_file_and_values_that_json_lacks(deployed):
    columns = {"id": [7], "text": ["a"], "day": [datetime.date(2024, 2, 29)], "share": [float("nan")], "raw": [b"\xff"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), "t.parquet")
    predict.main([f"model={deployed('sst2')}", "file=t.parquet", "out=out.jsonl"])
    [line] = lines_of("out.jsonl")
    assert line["id"] == 7
    assert [line["day"], line["share"], line["raw"]] == ["2024-02-29", "NaN", "\\xff"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "t.csv",
            "id,sentense\n1,a\n",
            "t.csv has no column sentence or text, which the task sst2 needs. Did you mean",
        ),
        ("t.csv", "", "t.csv has no rows."),
        ("t.jsonl", "{", "t.jsonl, line 1"),
        ("t.jsonl", '{"text": "a"}', "encoding='latin-2x': "),
    ],
)
def test_a_wrong_file_is_told_before_the_model_is_loaded(deployed, monkeypatch, name, text, message):
    monkeypatch.setattr(predict, "Pipeline", None)
    Path(name).write_text(text)
    words = ["encoding=latin-2x"] if "latin" in message else []
    with pytest.raises(UserError, match=re.escape(message.replace("='latin-2x'", "=latin-2x"))):
        predict.main([f"model={deployed('sst2')}", f"file={name}", "out=out.jsonl", *words])
    assert not Path("out.jsonl").exists()


def asked_of(deployed, rows):
    """The words for a file of these rows, to be answered into out.jsonl, both in the current directory."""
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"model={deployed('sst2')}", "file=rows.jsonl", "out=out.jsonl", "threads=1"]


def lines_of(name):
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_a_bad_row_is_named_in_its_place_and_the_rest_goes_on(deployed, capsys, monkeypatch):
    rows = [{"sentence": "a"}, {"text": None}, {"text": "b \ud800"}, {"text": ["c"]}, {"text": "d"}]
    words = asked_of(deployed, rows)
    monkeypatch.setattr(predict, "read_records", lambda path, limits, text_format: rows)
    with pytest.raises(SystemExit) as stopped:
        predict.main(words)
    assert stopped.value.code == 1
    told = lines_of("out.jsonl")
    answer = ["label", "score"]
    assert [list(each) for each in told] == [["sentence", *answer], *[["text", "error"]] * 3, ["text", *answer]]
    assert [each["error"] for each in told[1:4]] == [
        "Row 1: No sentence or text: the task sst2 needs sentence or text; there is text.",
        "Row 2: text: character 2 is U+D800, half of a UTF-16 pair and not a character. Write the pair as the one "
        "character that it stands for, or leave it out.",
        "Row 3: text=[...]: expected a text.",
    ]
    assert re.search(r"^5 rows in [\d.]+ s, [\d.]+ rows/s, errors=3\n\Z", capsys.readouterr().err, re.MULTILINE)
    with pytest.raises(SystemExit):
        predict.main([word for word in words if not word.startswith("out=")])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == told


def test_rows_with_and_without_an_answer_have_the_same_columns(deployed):
    rows = [{"text": text, "label": "gold", "error": 0} for text in ("a film", "", " \n")]
    with pytest.raises(SystemExit):
        predict.main(asked_of(deployed, rows))
    told = lines_of("out.jsonl")
    assert list(told[0]) == ["text", "input_label", "input_error", "label", "score"]
    for number in (1, 2):
        assert told[number] == {
            "text": rows[number]["text"],
            "input_label": "gold",
            "input_error": 0,
            "error": f"Row {number}: text is empty. Write a text, or leave the row out.",
        }


def test_an_empty_word_is_an_error_of_its_row(deployed):
    Path("t.jsonl").write_text('{"tokens": ["Ada", ""]}\n{"tokens": []}\n')
    with pytest.raises(SystemExit):
        predict.main([f"model={deployed('conll2003')}", "file=t.jsonl", "out=out.jsonl"])
    assert lines_of("out.jsonl") == [
        {"tokens": ["Ada", ""], "error": "Row 0: word 1 of tokens is empty. Leave it out."},
        {"tokens": [], "entities": []},
    ]


def test_a_lone_surrogate_in_row_900_of_a_file(deployed):
    rows = [{"text": "a film"}] * 900 + [{"text": "\ud800"}] + [{"text": "a film"}] * 99
    with pytest.raises(SystemExit):
        predict.main(asked_of(deployed, rows))
    told = lines_of("out.jsonl")
    assert [number for number, each in enumerate(told) if "error" in each] == [900]
    assert len(told) == 1000


def test_a_file_of_one_bad_row(deployed):
    with pytest.raises(SystemExit):
        predict.main(asked_of(deployed, [{"text": ""}, {"text": 1}][1:]))
    assert lines_of("out.jsonl") == [{"text": 1, "error": "Row 0: text=1: expected a text."}]


def test_answers_are_in_the_file_as_they_come(deployed, monkeypatch):
    """What there is when the process ends, whatever ends it."""
    words = asked_of(deployed, [{"text": f"a film {i}"} for i in range(9)])
    found, put = [], predict.to_file

    def counted(file, path, line):
        found.append(len(path.read_text().splitlines()))
        if len(found) == 6:
            raise KeyboardInterrupt
        put(file, path, line)

    monkeypatch.setattr(predict, "to_file", counted)
    with pytest.raises(KeyboardInterrupt):
        predict.main([*words, "batch=2"])
    assert found == [0, 1, 2, 3, 4, 5]
    assert [list(each) for each in lines_of("out.jsonl")] == [["text", "label", "score"]] * 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda out: out.write_text("mine"),
            "holds what sparse_xp did not write, and is left as it is. Name another file",
        ),
        (lambda out: out.write_text(""), "holds what sparse_xp did not write"),
        (lambda out: out.mkdir(), "is a directory. Name a file."),
        (lambda out: out.symlink_to("rows.jsonl"), "holds what sparse_xp did not write"),
        (lambda out: out.symlink_to(out), "holds what sparse_xp did not write"),
        (lambda out: out.symlink_to("no/where"), "there is no directory"),
        (lambda out: os.mkfifo(out), "holds what sparse_xp did not write"),
    ],
)
def test_what_is_there_is_not_written_over(deployed, make, message):
    words = asked_of(deployed, [{"text": "a"}])
    out, rows = Path("out.jsonl"), Path("rows.jsonl").read_bytes()
    make(out)
    before = out.read_bytes() if out.is_file() else None
    with pytest.raises(UserError, match=re.escape(message)):
        predict.main(words)
    assert (out.read_bytes() if out.is_file() else None) == before
    assert Path("rows.jsonl").read_bytes() == rows


def test_no_output_of_a_file_that_cannot_be_read_or_is_too_long(deployed):
    words = asked_of(deployed, [{"text": "a"}] * 3)
    with pytest.raises(UserError, match=r"rows\.jsonl: more than 2 rows\. Give max_rows= a larger number"):
        predict.main([*words, "max_rows=2"])
    Path("rows.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"rows\.jsonl"):
        predict.main([*words, "max_gigabytes=1"])
    with pytest.raises(UserError, match=r"out=nowhere/out\.jsonl: there is no directory .*nowhere\."):
        predict.main([*words, "out=nowhere/out.jsonl"])
    assert not Path("out.jsonl").exists()


def test_a_line_that_is_no_row_is_named_and_the_rest_goes_on(deployed, capsys):
    words = asked_of(deployed, [])
    Path("rows.jsonl").write_text('{"text": "a film"}\n{"text": \n[1]\nnull\n{"text": "a film"}\n')
    with pytest.raises(SystemExit):
        predict.main(words)
    told = [each.get("error", "an answer") for each in lines_of("out.jsonl")]
    assert told[0] == told[4] == "an answer"
    no_json = r"Row 1: rows\.jsonl, line 2, column \d+: no JSON \(Expecting value\)\."
    assert re.fullmatch(rf"{no_json} It ends too early: write the rest of it\.", told[1])
    for row, kind in ((2, "a list"), (3, "null")):
        expected = f"rows.jsonl, line {row + 1}: expected an object with the columns, not {kind}."
        assert told[row].startswith(f"Row {row}: {expected}")
    assert "errors=3" in capsys.readouterr().err


def test_a_reader_that_stops(deployed):
    words = [word for word in asked_of(deployed, [{"text": "a film"}] * 3000) if not word.startswith("out=")]
    command = [sys.executable, "-m", "sparse_xp.predict", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["label"]
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_full_disk_in_the_middle(deployed):
    resource = pytest.importorskip("resource")
    words = asked_of(deployed, [{"text": "a film"}] * 100)
    most = 1000
    done = subprocess.run(
        [sys.executable, "-m", "sparse_xp.predict", *words],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        f"{Path.cwd()}/out.jsonl: file too large. The answers so far are in it; name another file for all of them."
    )
    told = lines_of("out.jsonl")  # whole lines
    assert 5 < len(told) < 100
    assert Path("out.jsonl").stat().st_size <= most


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_screen_that_is_a_full_disk(deployed):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sparse_xp.predict", f"model={deployed('sst2')}", "text=a"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line == "The answers cannot be written: no space left on device. Name a file for them with out=."


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (b"text=caf\xe9", "text: character 3 is U+DCE9, half of a UTF-16 pair and not a character."),
        (b"te\xe9xt=a", "unknown option 'te\\udce9xt='. Did you mean 'text'?"),
    ],
)
def test_words_that_are_not_utf_8(deployed, monkeypatch, word, message):
    monkeypatch.setattr(sys, "argv", ["predict", f"model={deployed('sst2')}", os.fsdecode(word)])
    with pytest.raises(SystemExit) as stopped:
        run_command(predict.main, predict.__doc__)
    assert message in str(stopped.value.code)


def test_a_terminal_without_all_characters(deployed):
    words = [sys.executable, "-m", "sparse_xp.predict", f"model={deployed('squad')}", "question=Who?"]
    coded = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*words, "context=\u00e9 \u00e9 \u00e9"], env=coded, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\u00e9" in json.loads(done.stdout)["answer"]


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("squad", ["question=Who?"], "No context: the task squad needs question and context; there is question."),
        ("squad", ["quesion=Who?"], "unknown option 'quesion='. Did you mean 'question'?"),
        ("squad", ["question=Who?", "context=I.", "top=2"], "top=: the task squad has no classes"),
        ("embedding", ["text=a", "top=2"], "top=: the task custom_embedding has no classes"),
        ("squad", ["question"], "question: expected KEY=VALUE."),
        ("squad", ["question=Who?", "context=I.", "max_length=1000"], "max_length=1000: the model in "),
        ("sst2", ["text=a", "batch=x", "file=f"], "batch=x: expected a whole number"),
        ("sst2", ["text=a", "out=o"], "out= goes with file=ROWS."),
        ("sst2", ["text=a", "max_rows=3"], "max_rows= goes with file=ROWS."),
        ("sst2", ["text=a", "max_gigabytes=0"], "max_gigabytes=0: expected a whole number of at least 1."),
        ("sst2", ["text=a", "file=f"], "text= beside file=: say one of them."),
        ("sst2", ["file=nowhere.jsonl"], "No file nowhere.jsonl."),
        ("sst2", ["run=nowhere", "text=a"], "Give run=DIR"),
    ],
)
def test_refused_in_one_line(deployed, monkeypatch, kind, words, message):
    monkeypatch.setattr(sys, "argv", ["predict", f"model={deployed(kind)}", *words])
    with pytest.raises(SystemExit) as stopped:
        run_command(predict.main, predict.__doc__)
    assert message in str(stopped.value.code)
    assert len(str(stopped.value.code).splitlines()) == 1


def test_a_run_that_is_not_finished(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    done = predicted(f"run={tmp_path}", "text=a")
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line == f"{tmp_path} holds an unfinished run: issue its command again first."


def test_the_command_without_words_says_how():
    assert "run=RUN question=" in predicted().stdout
