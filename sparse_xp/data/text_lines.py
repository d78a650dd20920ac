"""Read a text file that has one text a line."""

from __future__ import annotations

from pathlib import Path

from sparse_xp.data.limits import DEFAULT_LIMITS, Limits
from sparse_xp.data.table import Table
from sparse_xp.data.text_files import read_text
from sparse_xp.errors import UserError
from sparse_xp.files.text_format import RECOGNISED, TextFormat


def read_text_lines(
    path: Path, column: str, limits: Limits = DEFAULT_LIMITS, text_format: TextFormat = RECOGNISED
) -> Table:
    """Return the lines of a file as rows with one column of texts. Blank lines are left out.

    Raises UserError for a file that is not text, and past the limits.
    """
    import pyarrow

    if unused := sorted(text_format.given.keys() - {"encoding"}):
        raise UserError(
            f"{text_format.prefix}{unused[0]}= means nothing for {path}, which has no columns. Leave it out."
        )
    lines = [
        (number, line.strip())
        for number, line in enumerate(read_text(path, limits, text_format).split("\n"), 1)
        if line.strip()
    ]
    limits.check(path, len(lines), 0)
    texts = pyarrow.table({column: pyarrow.array([text for _, text in lines], pyarrow.string())})
    return Table(texts, path, [[number] for number, _ in lines])
