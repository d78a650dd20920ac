"""Names of classes that come with the data: a ClassLabel column has them, in the order of the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparse_xp.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


def class_names(rows: Dataset, column: str) -> list[str] | None:
    """Return the names of a ClassLabel column, or of one of lists of ClassLabel; None for another column."""
    from datasets import ClassLabel

    feature = rows.features[column]
    inner = getattr(feature, "feature", feature)
    return list(inner.names) if isinstance(inner, ClassLabel) else None


def check_class_names(task: str, classes: list[str], rows: Dataset, column: str) -> None:
    """Raise UserError if the column names other classes than ``classes`` of the task, or in another order."""
    names = class_names(rows, column)
    if names and names != classes:
        raise UserError(
            f"task {task}: task.classes is {classes}, but column {column} of the data has {names}. Write them as the "
            "data have them, in their order, or leave task.classes out."
        )
