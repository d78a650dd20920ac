"""``python -m sparse_xp.predict``: answers of an exported model, as JSON. Needs neither torch nor transformers.

    python -m sparse_xp.predict run=RUN question="Who wrote it?" context="Ada wrote it."
    python -m sparse_xp.predict model=DEPLOYMENT text="What a film." [second="It was good."] [top=3]
    python -m sparse_xp.predict model=DEPLOYMENT tokens="John lives in Paris"    (words; text= for running text)
    python -m sparse_xp.predict run=RUN file=ROWS.jsonl [out=PREDICTIONS.jsonl] [batch=32]
        [max_rows=100000000] [max_gigabytes=16] [separator=semicolon] [quoting=none] [encoding=latin-1]

The texts go by these names or by the task's columns. A file (any that training takes) is answered row by row, a line
of JSON each, to a new file ``out=`` or the screen, as the answers come. A line has the columns of its row (its id, and
all others), then the answer: ``label`` and ``score``; ``value``; ``score``, ``start``, ``end`` and ``answer``; or a
list, as ``labels`` (several labels, or ``top=``), ``entities``, ``masks`` or ``embedding``. A row that cannot be
answered, one with an empty text among them, has the reason, ``"error": "Row 900: ..."``. A column that has the name of
a part of the answers, or the name ``error``, is called ``input_NAME`` in every line. The last line on the screen counts
the errors, and the exit code is 1 if there are any. Of texts to embed, a ``.txt`` file has one a line.
``separator=``, ``quoting=`` and ``encoding=`` of the file are as ``data.separator=`` and so on in training.
``threads=``: of onnxruntime, by default all; ``max_length=``: tokens, by default the task's.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from sparse_xp.cli import parse_key_values, positive_integer, run_command
from sparse_xp.data.limits import Limits
from sparse_xp.data.readers import read_records
from sparse_xp.data.text_lines import read_text_lines
from sparse_xp.deployment.bundle import read_task
from sparse_xp.deployment.folder import bundle_from_options
from sparse_xp.deployment.pipeline import Pipeline, expected_texts
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files.json_text import to_json
from sparse_xp.files.ownership import check_replaceable, never_replace
from sparse_xp.files.text_format import TextFormat
from sparse_xp.tasks.answers import Answer
from sparse_xp.tasks.base import Task

#: options that go with ``file=`` only, all options, and those that are numbers; the texts of the task come besides
FILE_OPTIONS = ("out", "batch", "max_rows", "max_gigabytes", "separator", "quoting", "encoding")
OPTIONS = ("run", "model", "file", *FILE_OPTIONS, "top", "threads", "max_length")
NUMBERS = ("batch", "max_rows", "max_gigabytes", "top", "threads", "max_length")


def main(argv: list[str]) -> None:
    """Run the command with these arguments."""
    given = parse_key_values(argv)
    numbers = {key: positive_integer(key, given[key]) for key in NUMBERS if key in given}
    if "out" in given:
        new_file(given["out"])  # before the model is loaded
    directory = bundle_from_options(given)
    task, _ = read_task(directory)
    names = list(dict.fromkeys(name for alternatives in task.text_names() for name in alternatives))
    check_options(task, given, [*names, *OPTIONS])
    texts: dict[str, Any] = {name: given[name] for name in names if name in given}
    if "file" not in given and (option := next((key for key in FILE_OPTIONS if key in given), None)):
        raise UserError(f"{option}= goes with file=ROWS.")
    if "file" in given and texts:
        raise UserError(f"{next(iter(texts))}= beside file=: say one of them.")
    rows = read_rows_of(task, given, numbers) if "file" in given else None  # before the model is loaded
    pipeline = Pipeline(directory, threads=numbers.get("threads"), max_length=numbers.get("max_length"))
    if rows is None:
        answer = pipeline(texts, top=numbers.get("top"))
        to_screen(as_json({task.list_name: answer} if task.embeds else answer, on_screen=True))
    elif answer_file(pipeline, rows, given, numbers):
        sys.exit(1)


def check_options(task: Task, given: dict[str, str], known: list[str]) -> None:
    """Raise UserError for an unknown option, or for ``top=`` if the task's answers have no order."""
    for key in given:
        if key not in known:
            raise UserError(
                f"unknown option '{key}='.{did_you_mean(key, known)} The task {task.name} takes "
                f"{expected_texts(task)}; the options are {', '.join(known)}."
            )
    if "top" in given and not task.ranks_answers:
        raise UserError(f"top=: the task {task.name} has no classes of a text.")


def read_rows_of(task: Task, given: dict[str, str], numbers: dict[str, int]) -> list[Any]:
    """Return the rows of ``file=``. Raises UserError for a file that cannot be read, or that lacks a column of texts.

    A row that cannot be read is a UserError in the list.
    """
    path, limits = Path(given["file"]), Limits.of(numbers.get("max_rows"), numbers.get("max_gigabytes"), prefix="")
    try:
        text_format = TextFormat(given.get("separator"), given.get("quoting"), given.get("encoding"), prefix="")
    except ValueError as error:
        raise UserError(str(error)) from error
    if task.embeds and path.suffix.lower() == ".txt":
        if lines := read_text_lines(path, "text", limits, text_format).to_list():
            return lines
        raise UserError(f"{path} has no rows.")
    rows = read_records(path, limits, text_format=text_format)
    columns = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
    for names in map(list, map(dict.fromkeys, task.text_names())):
        if columns and not any(name in columns for name in names):
            raise UserError(
                f"{path} has no column {' or '.join(names)}, which the task {task.name} needs."
                f"{did_you_mean(names[0], columns)} It has {', '.join(map(str, columns))}."
            )
    return rows


def answer_file(pipeline: Pipeline, rows: list[Any], given: dict[str, str], numbers: dict[str, int]) -> int:
    """Write a line for each row of ``file=`` as it is answered; return the number of rows without an answer."""
    if "out" not in given:
        return answer_rows(pipeline, rows, numbers, lambda answer: to_screen(as_json(answer, on_screen=True)))
    path = new_file(given["out"])
    with FileIO(path, "x") as file:
        return answer_rows(pipeline, rows, numbers, lambda answer: to_file(file, path, as_json(answer)))


def answer_rows(
    pipeline: Pipeline, rows: list[Any], numbers: dict[str, int], write: Callable[[dict[str, Any]], None]
) -> int:
    """Give the answer to each row to ``write``, print how many there were and how fast; return the number of errors."""
    bar = Console(stderr=True)
    start, errors = time.perf_counter(), 0
    asked: list[Any] = [row if (error := empty_text(pipeline.task, row)) is None else error for row in rows]
    answers = pipeline.stream(asked, batch=numbers.get("batch", 32), top=numbers.get("top"), errors="keep")
    parts = {*pipeline.task.answer_names(numbers.get("top")), "error"}
    shown = track(answers, "rows", len(rows), console=bar, disable=not bar.is_terminal, transient=True)
    for row, answer in zip(rows, shown, strict=True):
        write(with_columns(row, answer if isinstance(answer, dict) else {pipeline.task.list_name: answer}, parts))
        errors += isinstance(answer, dict) and "error" in answer
    seconds = time.perf_counter() - start
    print(f"{len(rows)} rows in {seconds:.1f} s, {len(rows) / seconds:.1f} rows/s, errors={errors}", file=sys.stderr)
    return errors


def empty_text(task: Task, row: object) -> UserError | None:
    """Return the error for a row with an empty text or word, which training refuses, too; None for another row."""
    if not isinstance(row, Mapping):
        return None
    for names in task.text_names():
        name = next((name for name in names if row.get(name) is not None), names[0])
        value = row.get(name)
        if isinstance(value, str) and not value.strip():
            return UserError(f"{name} is empty. Write a text, or leave the row out.")
        if isinstance(value, list) and "" in value:
            return UserError(f"word {value.index('')} of {name} is empty. Leave it out.")
    return None


def with_columns(row: object, answer: dict[str, Any], parts: set[str]) -> dict[str, Any]:
    """Return the columns of a row and then its answer; a column with the name of a part is ``input_NAME``.

    ``parts``: the names in all answers of the file, errors among them, so that each line names its columns alike.
    """
    line: dict[str, Any] = {}
    columns = {str(name): value for name, value in row.items()} if isinstance(row, Mapping) else {}
    for column, value in columns.items():
        name = column
        while name in parts or (name != column and name in columns):
            name = f"input_{name}"
        line[name] = value
    return {**line, **answer}


def new_file(name: str) -> Path:
    """Return the path of ``out=``. Raises UserError if it exists already, or its directory does not."""
    path = Path(name)
    if os.path.lexists(path) and not path.is_symlink() and path.is_dir():
        raise UserError(f"out={name} is a directory. Name a file.")
    real = check_replaceable(path, never_replace, "Name another file with out=, or remove it.")
    if not real.parent.is_dir():
        raise UserError(f"out={name}: there is no directory {real.parent}.")
    return real


def to_file(file: FileIO, path: Path, line: str) -> None:
    """Append the whole line, or nothing. Raises UserError where that fails."""
    begin, rest = file.tell(), f"{line}\n".encode()
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        with suppress(OSError):
            file.truncate(begin)
        raise UserError(
            f"{path}: {cause(error)}. The answers so far are in it; name another file for all of them."
        ) from error


def to_screen(line: str) -> None:
    """Print a line at once. Exits quietly if the reader has gone away; raises UserError if it cannot be written."""
    try:
        print(line, flush=True)
    except OSError as error:
        # The rest of the buffer would fail once more when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            sys.exit(0)
        raise UserError(f"The answers cannot be written: {cause(error)}. Name a file for them with out=.") from error


def cause(error: OSError) -> str:
    """Return the operating system's reason, as a part of a sentence."""
    return (error.strerror or str(error)).lower()


def as_json(answer: Answer, on_screen: bool = False) -> str:
    """Return the answer as a line of JSON, in ASCII where its characters cannot be shown, or are no UTF-8."""
    plain = on_screen and (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    line = to_json(answer, ensure_ascii=plain, default=as_plain)
    try:
        line.encode()
    except UnicodeEncodeError:  # half of a character, in a column that no task reads
        return to_json(answer, ensure_ascii=True, default=as_plain)
    return line


def as_plain(value: object) -> str | list[float]:
    """Return a value that JSON lacks as one that it has: an embedding as numbers, a date of a parquet file as a text.

    A number has the seven digits that float32 holds.
    """
    if isinstance(value, np.ndarray):
        return [float(f"{number:.7g}") for number in value.tolist()]
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    run_command(main, __doc__)
