"""Published numbers: ``sweeps/NAME.csv`` beside ``sweeps/NAME.yaml``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from sparse_xp.data.parquet import check_file
from sparse_xp.data.readers import read_text
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files import reading
from sparse_xp.places import CONF

#: points below a published number that still pass, where its line says nothing
TOLERANCE = 1.0
#: bytes of a CSV of published numbers; the largest has some thousands
LARGEST = 10_000_000


@dataclass
class Published:
    """One number, per cent, for the cell of that name on that task. ``std`` and ``n`` (seeds): None where not said.

    ``tolerance``: points below it that still pass. ``note``: what differs here from what was published. ``model``:
    whose number it is, by its name here; runs of another are marked. The column may be left out.
    """

    task: str
    cell: str
    metric: str
    published: float
    std: float | None
    n: int | None
    tolerance: float
    source: str
    note: str
    model: str | None = None


def read_published(path: Path) -> list[Published]:
    """The lines of a CSV. Raises UserError, with file and line, for one that is not as it must be."""
    check_file(path)
    with reading(path):
        size = path.stat().st_size
    if size > LARGEST:
        raise UserError(f"{path} has {size:,} bytes: more than published numbers need. Name their CSV.")
    reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    try:
        return _lines(path, reader)
    except csv.Error as error:
        where = f"{path}, line {reader.reader.line_num}"
        raise UserError(f"{where}: {error}. Look for a quote that is not closed.") from error


def _lines(path: Path, reader: csv.DictReader[str]) -> list[Published]:
    wanted = [field.name for field in fields(Published)]
    if reader.fieldnames not in (wanted, wanted[:-1]):
        raise UserError(
            f"{path}, line 1: want the columns {','.join(wanted)}, found {','.join(reader.fieldnames or [])}."
        )
    found: list[Published] = []
    seen: dict[tuple[str, ...], int] = {}
    for raw in reader:
        where = f"{path}, line {reader.line_num}"
        if None in raw or None in raw.values():
            count = len(reader.fieldnames)
            raise UserError(f"{where}: want {count} values. A comma inside one needs quotes around it.")
        line = Published(
            task=raw["task"],
            cell=raw["cell"],
            metric=raw["metric"],
            published=number(raw["published"], f"{where}: published"),
            std=number(raw["std"], f"{where}: std") if raw["std"] else None,
            n=int(number(raw["n"], f"{where}: n")) if raw["n"] else None,
            tolerance=number(raw["tolerance"], f"{where}: tolerance") if raw["tolerance"] else TOLERANCE,
            source=raw["source"],
            note=raw["note"],
            model=raw.get("model") or None,
        )
        if not line.source:
            raise UserError(f"{where}: a published number needs its source.")
        key = (line.task, line.cell, line.metric, *([line.model] if line.model else []))
        if key in seen:
            raise UserError(f"{where}: {' '.join(key)} stands in line {seen[key]} already.")
        seen[key] = reader.line_num
        found.append(line)
    return found


def number(text: str, where: str) -> float:
    """A number. Raises UserError for another text, and for one that is not finite."""
    try:
        found = float(text)
    except ValueError as error:
        raise UserError(f"{where}={text or '(nothing)'}: want a number.") from error
    if not math.isfinite(found):
        raise UserError(f"{where}={text}: want a number.")
    return found


def locate_published(sweep: str) -> Path:
    """The CSV of a sweep by its name, in ``sweeps/`` here or among those of sparse_xp, or by its path."""
    places = [Path(sweep), Path("sweeps") / f"{sweep}.csv", CONF.parent / "sweeps" / f"{sweep}.csv"]
    for path in places:
        if path.suffix == ".csv" and path.is_file():
            return path
    known = sorted(path.stem for path in (CONF.parent / "sweeps").glob("*.csv"))
    raise UserError(
        f"No published numbers for --sweep {sweep}.{did_you_mean(sweep, known)} There are: {', '.join(known)}."
    )


def find_published(sweep: Path | None) -> list[Published]:
    """The numbers beside the file of a sweep, none if there are none."""
    path = sweep.with_suffix(".csv") if sweep else None
    return read_published(path) if path and path.exists() else []


def check_published(
    published: list[Published], path: Path, runs: list[tuple[str, list[str]]], choices: Mapping[str, str]
) -> None:
    """Raise UserError for a number that no run of the sweep could stand beside. ``choices``: where words are silent."""
    there = {
        (value_of(words, "task") or choices["task"], name or value_of(words, "recipe") or choices["recipe"])
        for name, words in runs
    }
    for line in published:
        if (line.task, line.cell) not in there:
            names = {f"{task} {cell}" for task, cell in there}
            raise UserError(
                f"{path}: no run of the sweep is cell '{line.cell}' of task '{line.task}'."
                f"{did_you_mean(f'{line.task} {line.cell}', names)} There are: {', '.join(sorted(names))}."
            )


def value_of(words: list[str], key: str) -> str | None:
    """The value that ``words`` give to ``key``."""
    return next((word.partition("=")[2] for word in reversed(words) if word.partition("=")[0] == key), None)
