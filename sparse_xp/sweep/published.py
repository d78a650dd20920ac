"""Published numbers: ``sweeps/NAME.csv`` beside ``sweeps/NAME.yaml``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from sparse_xp.data.text_files import read_text
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files.reading import check_file, explain_read_errors
from sparse_xp.places import CONF
from sparse_xp.sweep.cells import Published

#: points below a published number that still pass, if its line has no tolerance
TOLERANCE = 1.0
#: the most bytes that a CSV of published numbers may have; the largest of ours has some thousands
MAX_BYTES = 10_000_000


def read_published(path: Path) -> list[Published]:
    """Return the numbers of a CSV. Raises UserError, with file and line, for a file of another form."""
    check_file(path)
    with explain_read_errors(path):
        size = path.stat().st_size
    if size > MAX_BYTES:
        raise UserError(f"{path} has {size:,} bytes: more than published numbers need. Name their CSV.")
    reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    try:
        return _read_lines(path, reader)
    except csv.Error as error:
        where = f"{path}, line {reader.reader.line_num}"
        raise UserError(f"{where}: {error}. Look for a quote that is not closed.") from error


def _read_lines(path: Path, reader: csv.DictReader[str]) -> list[Published]:
    """Return the numbers of all lines, each of another task, cell, metric and model."""
    columns = [field.name for field in fields(Published)]
    if reader.fieldnames not in (columns, columns[:-1]):  # the column "model" may be left out
        found = ",".join(reader.fieldnames or [])
        raise UserError(f"{path}, line 1: expected the columns {','.join(columns)}, found {found}.")
    numbers: list[Published] = []
    line_of: dict[tuple[str, ...], int] = {}
    for raw in reader:
        where = f"{path}, line {reader.line_num}"
        if None in raw or None in raw.values():
            count = len(reader.fieldnames)
            raise UserError(f"{where}: expected {count} values. A comma inside one needs quotes around it.")
        number = _parse_line(raw, where)
        key = (number.task, number.cell, number.metric, *([number.model] if number.model else []))
        if key in line_of:
            raise UserError(f"{where}: {' '.join(key)} stands in line {line_of[key]} already.")
        line_of[key] = reader.line_num
        numbers.append(number)
    return numbers


def _parse_line(raw: dict[str, str], where: str) -> Published:
    """Return the number of one line, by the names of its columns. ``where``: file and line, for messages."""
    number = Published(
        task=raw["task"],
        cell=raw["cell"],
        metric=raw["metric"],
        published=parse_number(raw["published"], f"{where}: published"),
        std=parse_number(raw["std"], f"{where}: std") if raw["std"] else None,
        n=int(parse_number(raw["n"], f"{where}: n")) if raw["n"] else None,
        tolerance=parse_number(raw["tolerance"], f"{where}: tolerance") if raw["tolerance"] else TOLERANCE,
        source=raw["source"],
        note=raw["note"],
        model=raw.get("model") or None,
    )
    if not number.source:
        raise UserError(f"{where}: a published number needs its source.")
    return number


def parse_number(text: str, where: str) -> float:
    """Return a finite number. Raises UserError for another text."""
    try:
        value = float(text)
    except ValueError as error:
        raise UserError(f"{where}={text or '(nothing)'}: expected a number.") from error
    if not math.isfinite(value):
        raise UserError(f"{where}={text}: expected a number.")
    return value


def locate_published(sweep: str) -> Path:
    """Return the CSV of a sweep, given by its path or by its name in ``sweeps/``, here or among those of sparse_xp."""
    paths = [Path(sweep), Path("sweeps") / f"{sweep}.csv", CONF.parent / "sweeps" / f"{sweep}.csv"]
    for path in paths:
        if path.suffix == ".csv" and path.is_file():
            return path
    known = sorted(path.stem for path in (CONF.parent / "sweeps").glob("*.csv"))
    raise UserError(
        f"No published numbers for --sweep {sweep}.{did_you_mean(sweep, known)} There are: {', '.join(known)}."
    )


def find_published(sweep: Path | None) -> list[Published]:
    """Return the published numbers in the CSV beside the file of a sweep; an empty list without one."""
    path = sweep.with_suffix(".csv") if sweep else None
    return read_published(path) if path and path.exists() else []


def check_published(
    published: list[Published], path: Path, runs: list[tuple[str, list[str]]], choices: Mapping[str, str]
) -> None:
    """Raise UserError for a number that matches the task and cell of no run of the sweep.

    ``path``: of the CSV. ``runs``: (name, overrides) of each; ``choices``: the groups where a run has no override.
    """
    known = {
        (value_of(overrides, "task") or choices["task"], name or value_of(overrides, "recipe") or choices["recipe"])
        for name, overrides in runs
    }
    for number in published:
        if (number.task, number.cell) not in known:
            names = {f"{task} {cell}" for task, cell in known}
            raise UserError(
                f"{path}: no run of the sweep is cell '{number.cell}' of task '{number.task}'."
                f"{did_you_mean(f'{number.task} {number.cell}', names)} There are: {', '.join(sorted(names))}."
            )


def value_of(overrides: list[str], key: str) -> str | None:
    """Return the value that the last override of ``key`` gives it, None if there is none."""
    values = (override.partition("=")[2] for override in reversed(overrides) if override.partition("=")[0] == key)
    return next(values, None)
