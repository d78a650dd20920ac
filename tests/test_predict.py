"""``python -m sparse_xp.predict``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sparse_xp import Pipeline, predict
from sparse_xp.words import command


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
    assert (shown.out, "5 rows in " in shown.err) == ("", True)
    predict.main([*words, "top=2"])
    assert [len(json.loads(line)) for line in capsys.readouterr().out.splitlines()] == [2] * 5


def test_a_bad_row_of_a_file_leaves_no_output(deployed, tmp_path):
    (tmp_path / "rows.csv").write_text("sentence,label\na,0\n")
    (tmp_path / "rows.jsonl").write_text('{"sentence": "a"}\n{"text": null}\n')
    words = [f"model={deployed('sst2')}", f"out={tmp_path / 'out.jsonl'}"]
    predict.main([*words, f"file={tmp_path / 'rows.csv'}"])
    (tmp_path / "out.jsonl").unlink()
    done = predicted(*words, f"file={tmp_path / 'rows.jsonl'}")
    assert done.returncode == 1
    assert done.stderr == "Row 1: No sentence or text: the task sst2 needs sentence or text; there is text.\n"
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("squad", ["question=Who?"], "No context: the task squad needs question and context; there is question."),
        ("squad", ["quesion=Who?"], "There is no 'quesion='. Did you mean 'question'?"),
        ("squad", ["question=Who?", "context=I.", "top=2"], "top=: the task squad has no classes"),
        ("squad", ["question"], "question: want KEY=VALUE."),
        ("squad", ["question=Who?", "context=I.", "max_length=1000"], "max_length=1000: the model in "),
        ("sst2", ["text=a", "batch=x", "file=f"], "batch=x: want a whole number"),
        ("sst2", ["text=a", "out=o"], "out= goes with file=ROWS."),
        ("sst2", ["text=a", "file=f"], "text= beside file=: say one of them."),
        ("sst2", ["file=nowhere.jsonl"], "No file nowhere.jsonl."),
        ("sst2", ["run=nowhere", "text=a"], "Say run=DIR"),
    ],
)
def test_refused_in_one_line(deployed, monkeypatch, kind, words, message):
    monkeypatch.setattr(sys, "argv", ["predict", f"model={deployed(kind)}", *words])
    with pytest.raises(SystemExit) as stopped:
        command(predict.main, predict.__doc__)
    assert message in str(stopped.value.code)
    assert len(str(stopped.value.code).splitlines()) == 1


def test_a_run_that_is_not_finished(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    done = predicted(f"run={tmp_path}", "text=a")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{tmp_path} holds an unfinished run: issue its command again first.\n"


def test_the_command_without_words_says_how():
    assert "run=RUN question=" in predicted().stdout
