"""Labels as one 0 or 1 for each class (multi-hot), as scikit-learn has them, told from lists of classes."""

from __future__ import annotations

from collections.abc import Callable

from sparse_xp.errors import UserError

#: what says that a class holds, or does not
HOLDS = {"1": True, "1.0": True, "true": True, "True": True, "0": False, "0.0": False, "false": False, "False": False}


def read_multi_hot(
    labels: list[list[str]], classes: list[str], column: str, place: Callable[[int], str]
) -> list[list[str]]:
    """Return multi-hot rows as the names of the classes that hold; rows of another kind as they are.

    Args:
        labels: those of each row, as texts.
        classes: those of the task; empty if they are not known.
        column: its name, for messages; ``place``: where a row is.

    Rows are multi-hot if each has a 0 or 1 for each class. Raises UserError for rows of 0 and 1 that have one of them
    twice, so that they are no lists of classes, and do not fit the classes.
    """
    if not all(text in HOLDS for row in labels for text in row):
        return labels
    if len(classes) > 1 and not HOLDS.keys() & set(classes) and all(len(row) == len(classes) for row in labels):
        return [[name for name, text in zip(classes, texts, strict=True) if HOLDS[text]] for texts in labels]
    for row, texts in enumerate(labels):
        if len({HOLDS[text] for text in texts}) < len(texts):
            raise UserError(
                f"{place(row)}: column {column} has [{', '.join(texts)}]. If that says which classes hold, "
                "name the classes with task.classes=[...], in their order; each row needs a 0 or 1 for each of them. "
                "Otherwise write a label once only."
            )
    return labels
