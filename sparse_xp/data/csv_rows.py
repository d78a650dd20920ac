"""Read rows from text with separated columns: comma, semicolon, tab or bar, with quotes or without.

The file decides, not its name: GLUE's files have tabs and unbalanced quotes, those of a German spreadsheet semicolons.
Every cell is a text, as the file has it; a kind of task makes numbers or lists of those of a column that it needs.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sparse_xp.data.text_files import NumberedRecord
from sparse_xp.errors import UserError
from sparse_xp.files.text_format import SEPARATORS, TextFormat

#: separators that are recognised
KNOWN = (",", ";", "\t", "|")
#: the first line by which Excel names the separator
DIRECTIVE = re.compile(r'"?sep=(.)"?')
#: a cell in quotes
QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass
class _Table:
    """The rows of a text under one way to read it: the number of the first line and the cells of each.

    ``error``: the line of a quote that cannot be read, and why; rows after it are missing.
    """

    separator: str
    quotes: bool
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    error: tuple[int, str] | None = None

    def misfits(self, lines: int) -> int:
        """Return how many rows have not as many cells as the first. ``lines``: those that must all be in a row."""
        width = len(self.rows[0][1]) if self.rows else 0
        unread = lines - self.error[0] + 1 if self.error else 0
        return sum(len(cells) != width for _, cells in self.rows) + unread


def csv_reader(default: str) -> Callable[[Path, str, bool, TextFormat], list[NumberedRecord]]:
    """Return a reader of separated text whose first line names the columns; ``default``: its usual separator."""

    def read(path: Path, text: str, arrow: bool, text_format: TextFormat) -> list[NumberedRecord]:
        table = _recognised(text.split("\n"), default, text_format)
        if table.error:
            line, reason = table.error
            advice = "Close the quote that begins there"
            if reason.startswith("new-line"):  # csv goes on with advice for programmers
                reason, advice = "a carriage return in a text without quotes", "Put quotes around the text"
            raise UserError(
                f"{path}, line {line}: {reason}. {advice}, or write {text_format.prefix}quoting=none if quotes are "
                "part of the texts."
            )
        if not table.rows:
            return []
        (first, header), *body = table.rows
        names = [name.strip() for name in header]
        names = names if len(set(names)) == len(names) else header
        if len(set(names)) < len(names):
            raise UserError(f"{path}, line {first}: two columns have the same name: {', '.join(names)}.")
        for number, cells in body:
            if len(cells) != len(names):
                raise _misfit(path, number, len(cells), names, table, text_format)
        return [([number], dict(zip(names, cells, strict=True))) for number, cells in body]

    return read


def _recognised(lines: list[str], default: str, text_format: TextFormat) -> _Table:
    """Return the rows under the separator and the quoting that fit best."""
    skipped = 0
    separator = text_format.separator
    if directive := DIRECTIVE.fullmatch(lines[0].strip()):
        separator, skipped = separator or directive[1], 1
    header = next((line for line in lines[skipped:] if line.strip()), "")
    unquoted = QUOTED.sub("", header)
    candidates = [sign for sign in dict.fromkeys((default, *KNOWN)) if sign in unquoted] or [default]
    tables = [_with_quoting(lines, skipped, sign, text_format) for sign in ([separator] if separator else candidates)]
    return min(tables, key=lambda table: table.misfits(len(lines)))  # the first of several that fit as well


def _with_quoting(lines: list[str], skipped: int, separator: str, text_format: TextFormat) -> _Table:
    """Return the rows under one separator, with quotes or without: as told, or as it fits better."""
    if text_format.quoting == "none" or not any('"' in line for line in lines):
        return _plain(lines, skipped, separator)
    quoted = _quoted(lines, skipped, separator)
    if text_format.quoting:
        return quoted
    plain = _plain(lines, skipped, separator)
    bad, bad_plain = quoted.misfits(len(lines)), plain.misfits(len(lines))
    if bad == bad_plain == 0:
        # A text of several lines that are rows by themselves is none: its quotes belong to two texts.
        return quoted if len(quoted.rows) == len(plain.rows) else plain
    return quoted if bad <= bad_plain or _quotes_by_habit(lines[skipped:], separator) else plain


def _quotes_by_habit(lines: list[str], separator: str) -> bool:
    """Return whether most quotes that begin a cell are closed at the end of one of the same line."""
    begin = rf"(?:(?<=^)|(?<={re.escape(separator)}))"
    opened, closed = re.compile(rf'{begin}"'), re.compile(rf"{begin}{QUOTED.pattern}(?={re.escape(separator)}|$)")
    well = sum(len(closed.findall(line)) for line in lines)
    return well > 0 and 2 * well >= sum(len(opened.findall(line)) for line in lines)


def _plain(lines: list[str], skipped: int, separator: str) -> _Table:
    """Return the rows of lines in which a quote is a sign like others."""
    table = _Table(separator, quotes=False)
    for number, line in enumerate(lines[skipped:], skipped + 1):
        cells = line.split(separator) if line else []
        if any(cells):
            table.rows.append((number, cells))
    if _blank_after_separator(table):
        table.rows = [(number, [cell.removeprefix(" ") for cell in cells]) for number, cells in table.rows]
    return table


def _quoted(lines: list[str], skipped: int, separator: str) -> _Table:
    """Return the rows of lines in which quotes enclose cells, up to the first quote that cannot be read."""
    table = _csv(lines, skipped, separator, False)
    return _csv(lines, skipped, separator, True) if _blank_after_separator(table) else table


def _csv(lines: list[str], skipped: int, separator: str, skip_blank: bool) -> _Table:
    table = _Table(separator, quotes=True)
    whole = (f"{line}\n" for line in lines[skipped:])
    reader = csv.reader(whole, delimiter=separator, skipinitialspace=skip_blank, strict=True)
    number = skipped + 1
    limit = csv.field_size_limit(sum(map(len, lines)) + len(lines) + 1)  # a text may be long
    try:
        for cells in reader:
            # Spreadsheets append lines of empty cells; they are skipped.
            if any(cells) or len(cells) == 1:
                table.rows.append((number, cells))
            number = skipped + reader.line_num + 1
    except csv.Error as error:
        table.error = (number, str(error))
    finally:
        csv.field_size_limit(limit)
    return table


def _blank_after_separator(table: _Table) -> bool:
    """Return whether a blank follows each separator of the first line, as in ``text, label``."""
    names = table.rows[0][1][1:] if table.rows else []
    return table.separator != " " and bool(names) and all(name.startswith(" ") for name in names)


def _misfit(path: Path, line: int, cells: int, names: list[str], table: _Table, text_format: TextFormat) -> UserError:
    """Return the error for a row with too few or too many cells."""
    sign = {sign: name for name, sign in reversed(SEPARATORS.items())}.get(table.separator, repr(table.separator))
    if cells < len(names):
        advice = "Write a separator after each cell, also after an empty one"
    elif not table.quotes and any('"' in cell for _, row in table.rows for cell in row):
        advice = f"Its quotes are read as signs of the texts ({text_format.prefix}quoting=minimal: as enclosing them)"
    else:
        advice = f"Put quotes around a text that holds a {sign}"
    there, named = f"{cells} field{'s' * (cells > 1)}", f"{len(names)} column{'s' * (len(names) > 1)}"
    return UserError(
        f"{path}, line {line}: {there}, but the first line names {named}: {', '.join(names)}. {advice}, or name "
        f"another separator with {text_format.prefix}separator=."
    )
