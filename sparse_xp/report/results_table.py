"""The table of all runs below some directories, a row for each run. That of a sweep begins in ``rows.py``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sparse_xp.result import Result, result_row
from sparse_xp.text import markdown

#: columns that move into the line above the table if all rows agree
SHARED_COLUMNS = ("task", "model", "quantization", "seed", "train rows", "epochs")
COMPRESSION = "compression (encoder / model)"
#: the value that is left out of that line
NOT_QUANTIZED = ("quantization", "none")


def results_table(runs: list[tuple[Path, Result]]) -> str:
    """Return all runs as a Markdown table; what is equal in all of them stands in a line above.

    ``runs``: each with its directory. The names of the directories are a column too if the other columns do not tell
    all runs apart, as those of ``sparsity=gradual`` and ``sparsity=obert``.
    """
    runs = sorted(runs, key=lambda run: sort_key(run[1]))
    rows = [result_row(result) for _, result in runs]
    if not any(row[COMPRESSION] for row in rows):  # results of earlier versions
        rows = [{column: value for column, value in row.items() if column != COMPRESSION} for row in rows]
    if len({sort_key(result) for _, result in runs}) < len(runs):
        directories = [directory.resolve() for directory, _ in runs]
        top = os.path.commonpath([directory.parent for directory in directories])
        names = [os.path.relpath(directory, top) for directory in directories]
        rows = [{"run": name} | row for name, row in zip(names, rows, strict=True)]
    shared = {column: rows[0][column] for column in SHARED_COLUMNS if len({row[column] for row in rows}) == 1}
    head = ", ".join(f"{column} {value}" for column, value in shared.items() if (column, value) != NOT_QUANTIZED)
    table = markdown([{column: value for column, value in row.items() if column not in shared} for row in rows])
    return f"{head}\n\n{table}" if head else table


def sort_key(result: Result) -> tuple[Any, ...]:
    """Return what the columns show of how a run was made, in the order by which rows are sorted."""
    training = result.training
    return (
        *(result.task, result.model, result.recipe, not result.teacher, result.seed),
        *(result.quantization or "", training.train_rows, training.epochs),
    )
