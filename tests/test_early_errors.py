"""What is wrong with a file of rows is told before torch is imported, and nothing is printed above it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

#: run each command in one process, and print for each what it printed, its message, and which slow libraries it loaded
PROBE = """
import contextlib, io, json, os, sys
from hydra.core.global_hydra import GlobalHydra
from sparse_xp import predict
from sparse_xp.__main__ import cli
from sparse_xp.cli import run_command

found = []
for module, *words in json.loads(sys.argv[1]):
    GlobalHydra.instance().clear()
    os.environ.pop("HYDRA_FULL_ERROR", None)
    sys.argv = [module, *words]
    printed, message = io.StringIO(), None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            cli() if module == "sparse_xp" else run_command(predict.main, "")
        except SystemExit as stop:
            message = stop.code
    found.append([printed.getvalue(), message, [name for name in SLOW if name in sys.modules]])
print(json.dumps(found))
"""
SLOW = ["torch", "transformers", "datasets", "onnxruntime"]

ASKED = {"question": "Who?", "context": "It was Ada.", "answers": {"text": ["Ada"], "answer_start": [7]}}
FILES = {
    "empty.csv": "",
    "column.csv": "sentense,label\na,negative\nb,positive\n",
    "label.csv": "sentence,label\na,negative\nb,\n",
    "class.csv": "sentence,label\na,negative\nb,postive\n",
    "good.csv": "sentence,label\n" + "a,negative\nb,positive\n" * 9,
    "few.csv": "sentence,label\na,negative\nb,positive\n",
    "eve.json": json.dumps([{**ASKED, "answers": "Eve"}]),
    "bad.conll": "Ada B-PER\nspoke\n",
    "bad.parquet": "PAR1",
    "bad.txt": "a\n\0\n",
}
RUNS = [
    ("task=sst2", "missing.csv", "data.train=missing.csv: there is no such file"),
    ("task=sst2", "column.csv", "no column 'sentence'. Did you mean 'sentense'?"),
    ("task=sst2", "label.csv", "label.csv, line 3"),
    ("task=sst2", "few.csv", "held out leaves no rows"),
    ("task=sst2", "bad.parquet", "bad.parquet is not a parquet file"),
    ("task=squad", "eve.json", "eve.json, row 0, column answers"),
    ("task=conll2003", "bad.conll", "bad.conll, line 2"),
    ("task=wikitext2", "column.parquet", "column.parquet has no column 'text'"),
    ("task=wikitext2", "bad.txt", "bad.txt, line 2: a NUL byte"),
]


def probe(commands: list[list[str]]) -> list[tuple[str, str, list[str]]]:
    """What each command printed, its message, and the slow libraries that were loaded by then."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.replace("SLOW", repr(SLOW)), json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [(printed, message, loaded) for printed, message, loaded in json.loads(done.stdout)]


@pytest.fixture(autouse=True)
def _files():
    for name, text in FILES.items():
        Path(name).write_text(text)
    pyarrow.parquet.write_table(pyarrow.table({"words": ["a"]}), "column.parquet")


def test_a_wrong_file_stops_a_run_at_once():
    common = ["profile=embedded", "recipe=gradual80", "teacher=dense", "export.target_cpu=avx2"]
    commands = [["sparse_xp", task, *common, f"data.train={name}"] for task, name, _ in RUNS]
    commands.append(["sparse_xp", "task=sst2", *common, "data.train=good.csv", "data.validation=class.csv"])
    told = [*(message for *_, message in RUNS), "class.csv, line 3"]
    for command, part, (printed, message, loaded) in zip(commands, told, probe(commands), strict=True):
        assert part in message, command
        assert (printed, loaded) == ("", []), command
    assert not list(Path("outputs").rglob("config.yaml"))


def test_a_wrong_file_stops_predict_at_once(deployed):
    files = {
        "empty.csv": "empty.csv has no rows.",
        "column.csv": "column.csv has no column sentence or text",
        "bad.parquet": "bad.parquet is not a parquet file",
    }
    commands = [["predict", f"run={deployed('sst2')}", f"file={name}"] for name in files]
    for part, (printed, message, loaded) in zip(files.values(), probe(commands), strict=True):
        assert part in message
        assert (printed, loaded) == ("", [])
