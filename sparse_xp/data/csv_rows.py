"""Read rows from text with separated columns: comma, semicolon, tab or bar, with quotes or without.

The file decides, not its name: GLUE's files have tabs and unbalanced quotes, those of a German spreadsheet semicolons.
Every cell is a text, as the file has it; a kind of task makes numbers or lists of those of a column that it needs.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from sparse_xp.data.text_files import NumberedRecord
from sparse_xp.errors import UserError
from sparse_xp.files.text_format import SEPARATORS, TextFormat

#: separators that are recognised
KNOWN = (",", ";", "\t", "|")
#: the first line by which Excel names the separator
DIRECTIVE = re.compile(r'\s*"?sep=(.)"? *', re.IGNORECASE)
#: a cell in quotes
QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass
class _Table:
    """The rows of a text under one way to read it: the number of the first line and the cells of each.

    ``error``: the line of a quote that cannot be read, and why; rows after it are missing.
    ``doubtful``: the line of a text that is one of several lines with its quotes, and several rows without.
    """

    separator: str
    quotes: bool
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    error: tuple[int, str] | None = None
    doubtful: int | None = None

    def misfits(self, lines: int) -> int:
        """Return how many rows have not as many cells as the first. ``lines``: those that must all be in a row."""
        width = len(self.rows[0][1]) if self.rows else 0
        unread = lines - self.error[0] + 1 if self.error else 0
        return sum(len(cells) != width for _, cells in self.rows) + unread


def csv_reader(default: str) -> Callable[[Path, str, TextFormat, Collection[str] | None], list[NumberedRecord]]:
    """Return a reader of separated text whose first line names the columns; ``default``: its usual separator."""

    def read(path: Path, text: str, text_format: TextFormat, used: Collection[str] | None) -> list[NumberedRecord]:
        lines = text.split("\n")
        table = _recognised(lines, default, text_format)
        if table.error:
            raise _bad_quote(path, table.error, lines, text_format)
        if table.doubtful:
            raise UserError(
                f"{path}, line {table.doubtful}: with its quotes this is one text of several lines, without them it is "
                f"several rows. Write {text_format.prefix}quoting=minimal if quotes enclose the texts, "
                f"{text_format.prefix}quoting=none if they are part of them."
            )
        if not table.rows:
            return []
        (first, header), *body = table.rows
        stripped = Counter(name.strip() for name in header)
        names = [name.strip() if stripped[name.strip()] == 1 else name for name in header]
        left_out = {name for name, count in Counter(names).items() if count > 1}
        if any(name.strip() and (used is None or name in used) for name in left_out):
            raise UserError(f"{path}, line {first}: two columns have the same name: {', '.join(names)}.")
        for number, cells in body:
            if len(cells) != len(names):
                raise _misfit(path, number, names, table, text_format)
        kept = [i for i, name in enumerate(names) if name not in left_out]
        return [([number], {names[i]: cells[i] for i in kept}) for number, cells in body]

    return read


def _bad_quote(path: Path, error: tuple[int, str], lines: list[str], text_format: TextFormat) -> UserError:
    """Return the error for a quote that cannot be read, at this line and for this reason."""
    number, reason = error
    if reason.startswith("new-line"):  # csv goes on with advice for programmers
        reason, advice = "a carriage return in a text without quotes", "Put quotes around the text"
    elif '\\"' in lines[number - 1]:
        return UserError(
            f'{path}, line {number}: \\" in a text in quotes, as MySQL writes it. Write two quotes ("") for each that '
            f"is part of a text, or {text_format.prefix}quoting=none to keep all quotes and backslashes."
        )
    else:
        advice = "Close the quote that begins there"
    return UserError(
        f"{path}, line {number}: {reason}. {advice}, or write {text_format.prefix}quoting=none if quotes are part of "
        "the texts."
    )


def _recognised(lines: list[str], default: str, text_format: TextFormat) -> _Table:
    """Return the rows under the separator and the quoting that fit best."""
    skipped = 0
    separator = text_format.separator
    if directive := DIRECTIVE.fullmatch(lines[0].removesuffix("\r")):
        separator, skipped = separator or directive[1], 1
    header = next((line.removesuffix("\r") for line in lines[skipped:] if line.strip()), "")
    unquoted = QUOTED.sub("", header)
    candidates = [sign for sign in dict.fromkeys((default, *KNOWN)) if sign in unquoted] or [default]
    tables = [_with_quoting(lines, skipped, sign, text_format) for sign in ([separator] if separator else candidates)]
    return min(tables, key=lambda table: table.misfits(len(lines)))  # the first of several that fit as well


def _with_quoting(lines: list[str], skipped: int, separator: str, text_format: TextFormat) -> _Table:
    """Return the rows under one separator, with quotes or without: as told, or as it fits better."""
    if text_format.quoting == "none" or not any('"' in line for line in lines):
        return _plain(lines, skipped, separator)
    quoted = _quoted(lines, skipped, separator)
    if text_format.quoting or (quoted.error and _has_backslashes(lines[quoted.error[0] - 1], separator)):
        return quoted
    plain = _plain(lines, skipped, separator)
    bad, bad_plain = quoted.misfits(len(lines)), plain.misfits(len(lines))
    habit = _quotes_by_habit(lines[skipped:], separator)
    if bad == bad_plain == 0 and len(quoted.rows) < len(plain.rows) and not _has_quoted_names(plain):
        inside, rows_inside = _rows_in_texts(quoted, plain)
        if rows_inside and not habit and separator == "\t":
            return plain  # as in GLUE's files: the quotes belong to two texts
        if rows_inside or (separator == "\t" and not habit):
            quoted.doubtful = inside
        return quoted
    return quoted if bad <= bad_plain or habit else plain


def _has_backslashes(line: str, separator: str) -> bool:
    """Return whether a cell in quotes has a backslash before each quote that is part of its text, as of MySQL."""
    sign = re.escape(separator)
    cell = r'"(?:[^"\\]|\\.)*\\"(?:[^"\\]|\\.)*"'
    return re.search(rf"(?:^|{sign}){cell}(?:{sign}|\r?$)", line) is not None


def _has_quoted_names(plain: _Table) -> bool:
    """Return whether each name in the first line is in quotes."""
    return all(QUOTED.fullmatch(name.strip()) for name in plain.rows[0][1])


def _rows_in_texts(quoted: _Table, plain: _Table) -> tuple[int, bool]:
    """Return the line of the first text of several lines, and whether such texts seem to be rows.

    Both tables have as many cells in each row as in the first. The lines of a text seem to be rows if a cell after
    their first one is found in the same column elsewhere, as a label is.
    """
    begins = {number for number, _ in quoted.rows}
    blocks: list[tuple[int, list[list[str]]]] = []
    for number, cells in plain.rows:
        if number in begins:
            blocks.append((number, []))
        blocks[-1][1].append(cells)
    sure, doubtful = set[tuple[int, str]](), set[tuple[int, str]]()  # cells with the numbers of their columns
    for _, (first, *others) in blocks:
        numbered = [list(enumerate(cells)) for cells in (first, *others)]
        if not others:
            sure.update(numbered[0])
            continue
        opens = max((i for i, cell in numbered[0] if cell.lstrip().startswith('"')), default=0)
        closes = min((i for i, cell in numbered[-1] if cell.endswith('"')), default=0)
        sure.update(numbered[0][:opens] + numbered[-1][closes + 1 :])
        doubtful.update(numbered[0][opens + 1 :] + numbered[-1][:closes])
        doubtful.update(cell for row in numbered[1:-1] for cell in row)
    line = next(number for number, rows in blocks if len(rows) > 1)
    return line, any(cell[1] for cell in sure & doubtful)


def _quotes_by_habit(lines: list[str], separator: str) -> bool:
    """Return whether most quotes that begin a cell are closed at the end of one of the same line."""
    begin = rf"(?:(?<=^)|(?<={re.escape(separator)}))"
    opened, closed = re.compile(rf'{begin}"'), re.compile(rf"{begin}{QUOTED.pattern}(?={re.escape(separator)}|$)")
    well = sum(len(closed.findall(line.removesuffix("\r"))) for line in lines)
    return well > 0 and 2 * well >= sum(len(opened.findall(line)) for line in lines)


def _plain(lines: list[str], skipped: int, separator: str) -> _Table:
    """Return the rows of lines in which a quote is a sign like others."""
    table = _Table(separator, quotes=False)
    for number, line in enumerate(lines[skipped:], skipped + 1):
        cells = line.removesuffix("\r").split(separator) if line else []
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


def _misfit(path: Path, line: int, names: list[str], table: _Table, text_format: TextFormat) -> UserError:
    """Return the error for the first row with too few or too many cells."""
    widths = [len(row) for _, row in table.rows[1:]]
    cells = next(width for width in widths if width != len(names))
    comment = names[0].startswith("#")
    if (
        not comment
        and set(widths) == {len(names) + 1}
        and 1 < len(widths) == len({row[0] for _, row in table.rows[1:]})
    ):
        # The names of the rows are all different, and have no name themselves.
        return UserError(
            f"{path}, line {table.rows[0][0]}: the first line names {', '.join(names)}, one column less than each row "
            "has. Write a name for the first column too, such as id (R: write.table(col.names=NA))."
        )
    sign = {sign: name for name, sign in reversed(SEPARATORS.items())}.get(table.separator, repr(table.separator))
    if comment:
        advice = "Remove the first line if it is a comment"
    elif cells < len(names):
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
