"""``python -m sparse_xp.predict``: what an exported model answers, as JSON. Needs neither torch nor transformers.

    python -m sparse_xp.predict run=RUN question="Who wrote it?" context="Ada wrote it."
    python -m sparse_xp.predict model=DEPLOYMENT text="What a film." [second="It was good."] [top=3]
    python -m sparse_xp.predict model=DEPLOYMENT tokens="John lives in Paris"    (words; text= for running text)
    python -m sparse_xp.predict run=RUN file=ROWS.jsonl [out=PREDICTIONS.jsonl] [batch=32]
        [max_rows=100000000] [max_gigabytes=16]

The texts go by these names or by the task's columns. A file (any that training takes) is answered row by row, a line
each, to a new file ``out=`` or the screen, as the answers come. A row that cannot be answered has a line with the
reason, ``{"error": "Row 900: ..."}``; the last line on the screen counts them, and the exit code is 1 if there are any.
``threads=``: of onnxruntime, by default all; ``max_length=``: tokens, by default the task's.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from sparse_xp.cli import command, split, whole
from sparse_xp.data.readers import Limits, read_records
from sparse_xp.deployment.bundle import locate
from sparse_xp.deployment.pipeline import Pipeline
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files import claim, never
from sparse_xp.tasks import Pretraining, TextClassification

#: words that go with ``file=`` alone
OF_FILE = ("out", "batch", "max_rows", "max_gigabytes")
OURS = ("run", "model", "file", *OF_FILE, "top", "threads", "max_length")
NUMBERS = ("batch", "max_rows", "max_gigabytes", "top", "threads", "max_length")


def main(words: list[str]) -> None:
    """Run the command with these words."""
    given = split(words)
    numbers = {key: whole(key, given[key]) for key in NUMBERS if key in given}
    if "out" in given:
        new_file(given["out"])
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
        if other := next((key for key in OF_FILE if key in given), None):
            raise UserError(f"{other}= goes with file=ROWS.")
        to_screen(as_json(pipeline(texts, top=numbers.get("top")), on_screen=True))
        return
    if texts:
        raise UserError(f"{next(iter(texts))}= beside file=: say one of them.")
    if answer_file(pipeline, given, numbers):
        sys.exit(1)


def answer_file(pipeline: Pipeline, given: dict[str, str], numbers: dict[str, int]) -> int:
    """A line for each row of ``file=`` as it is answered; how many could not be."""
    rows = read_records(Path(given["file"]), limits_of(numbers))
    if "out" not in given:
        return answer_rows(pipeline, rows, numbers, lambda answer: to_screen(as_json(answer, on_screen=True)))
    path = new_file(given["out"])
    with FileIO(path, "x") as file:
        return answer_rows(pipeline, rows, numbers, lambda answer: to_file(file, path, as_json(answer)))


def answer_rows(
    pipeline: Pipeline, rows: list[dict[str, Any]], numbers: dict[str, int], put: Callable[[Any], None]
) -> int:
    """Give the answer to each row to ``put``, and say how many there were and how fast; how many are errors."""
    bar = Console(stderr=True)
    begun, wrong = time.perf_counter(), 0
    answers = pipeline.stream(rows, batch=numbers.get("batch", 32), top=numbers.get("top"), errors="keep")
    for answer in track(answers, "rows", len(rows), console=bar, disable=not bar.is_terminal, transient=True):
        put(answer)
        wrong += isinstance(answer, dict) and "error" in answer
    seconds = time.perf_counter() - begun
    print(f"{len(rows)} rows in {seconds:.1f} s, {len(rows) / seconds:.1f} rows/s, errors={wrong}", file=sys.stderr)
    return wrong


def limits_of(numbers: dict[str, int]) -> Limits:
    """What ``max_rows=`` and ``max_gigabytes=`` say."""
    told = {}
    if "max_rows" in numbers:
        told["rows"] = numbers["max_rows"]
    if "max_gigabytes" in numbers:
        told["bytes"] = numbers["max_gigabytes"] * 10**9
    return Limits(**told, prefix="")


def new_file(name: str) -> Path:
    """The file of ``out=``. Raises UserError if there is something of that name already, or no folder for it."""
    path = Path(name)
    if os.path.lexists(path) and not path.is_symlink() and path.is_dir():
        raise UserError(f"out={name} is a directory. Name a file.")
    real = claim(path, never, "Name another file with out=, or remove it.")
    if not real.parent.is_dir():
        raise UserError(f"out={name}: there is no directory {real.parent}.")
    return real


def to_file(file: FileIO, path: Path, line: str) -> None:
    """Add a whole line, or none. Raises UserError where that fails."""
    begin, rest = file.tell(), f"{line}\n".encode()
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        with suppress(OSError):
            file.truncate(begin)
        told = room(error)
        raise UserError(f"{path}: {told}. The answers so far are in it; name another file for all of them.") from error


def to_screen(line: str) -> None:
    """Print a line at once. Ends the process quietly where nobody reads on; raises UserError where it cannot go."""
    try:
        print(line, flush=True)
    except OSError as error:
        # What is left in the buffer would be an error once more, when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            sys.exit(0)
        raise UserError(f"The answers cannot be written: {room(error)}. Name a file for them with out=.") from error


def room(error: OSError) -> str:
    """Why something was not written, in words."""
    return (error.strerror or str(error)).lower()


def as_json(answer: Any, on_screen: bool = False) -> str:
    """One line; on a screen that has not all characters in ASCII."""
    plain = on_screen and (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    return json.dumps(answer, ensure_ascii=plain)


if __name__ == "__main__":
    command(main, __doc__)
