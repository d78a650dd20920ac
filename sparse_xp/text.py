"""Formatting of tables and counts."""

from __future__ import annotations


def rows_used(used: int, there: int, some_only: bool = False) -> str:
    """``3,000 of 11,877``, or ``11,877`` if these are all (with ``some_only`` nothing then)."""
    if used < there:
        return f"{used:,} of {there:,}"
    return "" if some_only else f"{there:,}"


def markdown(rows: list[dict[str, str]]) -> str:
    """Rows with the same columns as a Markdown table, aligned for reading as text."""
    columns = list(rows[0])
    widths = {c: max(len(c), *(len(r[c]) for r in rows)) for c in columns}

    def line(cells: dict[str, str]) -> str:
        return "| " + " | ".join(cells[c].ljust(widths[c]) for c in columns) + " |"

    rule = "|" + "|".join("-" * (widths[c] + 2) for c in columns) + "|"
    return "\n".join([line({c: c for c in columns}), rule, *map(line, rows)])


def in_short(numbers: list[int]) -> str:
    """``6 in 6 layers``, or each of them where they differ: ``6 5 4``."""
    same = len(numbers) > 1 and len(set(numbers)) == 1
    return f"{numbers[0]} in {len(numbers)} layers" if same else " ".join(map(str, numbers))
