"""``python -m sparse_xp.predict``: what an exported model answers, as JSON. Needs neither torch nor transformers.

    python -m sparse_xp.predict run=RUN question="Who wrote it?" context="Ada wrote it."
    python -m sparse_xp.predict model=DEPLOYMENT text="What a film." [second="It was good."] [top=3]
    python -m sparse_xp.predict model=DEPLOYMENT tokens="John lives in Paris"    (words; text= for running text)
    python -m sparse_xp.predict run=RUN file=ROWS.jsonl [out=PREDICTIONS.jsonl] [batch=32]

The texts go by these names or by the task's columns. A file (any that training takes) is answered row by row, a line
each, to ``out=`` or the screen. ``threads=``: of onnxruntime, by default all; ``max_length=``: tokens, by default the
task's.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from sparse_xp.bundle import locate
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files import write_text
from sparse_xp.pipeline import Pipeline
from sparse_xp.readers import read_records
from sparse_xp.tasks import Pretraining, TextClassification
from sparse_xp.words import command, split, whole

OURS = ("run", "model", "file", "out", "batch", "top", "threads", "max_length")


def main(words: list[str]) -> None:
    """Run the command with these words."""
    given = split(words)
    numbers = {key: whole(key, given[key]) for key in ("batch", "top", "threads", "max_length") if key in given}
    pipeline = Pipeline(locate(given), threads=numbers.get("threads"), max_length=numbers.get("max_length"))
    names = dict.fromkeys(name for alike in pipeline.texts for name in alike)
    for key in given:
        if key not in (known := [*names, *OURS]):
            near = did_you_mean(key, known)
            raise UserError(
                f"There is no '{key}='.{near} The task {pipeline.task.name} takes {pipeline.wanted}; there are: "
                f"{', '.join(known)}."
            )
    if "top" in given and not isinstance(pipeline.task, TextClassification | Pretraining):
        raise UserError(f"top=: the task {pipeline.task.name} has no classes of a text.")
    texts: dict[str, Any] = {name: given[name] for name in names if name in given}
    if "file" not in given:
        if other := next((key for key in ("out", "batch") if key in given), None):
            raise UserError(f"{other}= goes with file=ROWS.")
        print(as_json(pipeline(texts, top=numbers.get("top"))))
        return
    if texts:
        raise UserError(f"{next(iter(texts))}= beside file=: say one of them.")
    answer_file(pipeline, given, numbers.get("batch", 32), numbers.get("top"))


def answer_file(pipeline: Pipeline, given: dict[str, str], batch: int, top: int | None) -> None:
    """A line for each row of ``file=``; to ``out=`` whole or not at all."""
    rows = read_records(Path(given["file"]))
    bar = Console(stderr=True)
    begun, lines = time.perf_counter(), []
    answers = pipeline.stream(rows, batch=batch, top=top)
    for answer in track(answers, "rows", len(rows), console=bar, disable=not bar.is_terminal, transient=True):
        if "out" in given:
            lines.append(as_json(answer) + "\n")
        else:
            print(as_json(answer))
    if "out" in given:
        write_text(Path(given["out"]), "".join(lines))
    seconds = time.perf_counter() - begun
    print(f"{len(rows)} rows in {seconds:.1f} s, {len(rows) / seconds:.1f} rows/s", file=sys.stderr)


def as_json(answer: Any) -> str:
    """One line."""
    return json.dumps(answer, ensure_ascii=False)


if __name__ == "__main__":
    command(main, __doc__)
