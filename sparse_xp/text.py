"""Formatting of tables and counts."""

from __future__ import annotations


def rows_used(used: int, total: int, some_only: bool = False) -> str:
    """Return ``3,000 of 11,877``, or ``11,877`` if all rows are used (an empty string with ``some_only``)."""
    if used < total:
        return f"{used:,} of {total:,}"
    return "" if some_only else f"{total:,}"


def without_labels(count: int) -> str:
    """Return `` and 5,000 without labels``, an empty string for none."""
    return f" and {count:,} without labels" if count else ""


def markdown(rows: list[dict[str, str]]) -> str:
    """Return rows with the same columns as a Markdown table, padded so that it also reads well as plain text."""
    columns = list(rows[0])
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}

    def line(cells: dict[str, str]) -> str:
        return "| " + " | ".join(cells[column].ljust(widths[column]) for column in columns) + " |"

    rule = "|" + "|".join("-" * (widths[column] + 2) for column in columns) + "|"
    return "\n".join([line({column: column for column in columns}), rule, *map(line, rows)])


def abbreviate_counts(counts: list[int]) -> str:
    """Return ``6 in 6 layers`` if all layers have the same count, else the count of each layer: ``6 5 4``."""
    same = len(counts) > 1 and len(set(counts)) == 1
    return f"{counts[0]} in {len(counts)} layers" if same else " ".join(map(str, counts))
