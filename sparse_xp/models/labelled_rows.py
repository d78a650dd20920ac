"""Rows of a program for a trained model, whose classes are the labels of that model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparse_xp.errors import UserError
from sparse_xp.models.config_files import label_names_of
from sparse_xp.models.heads import are_placeholders
from sparse_xp.settings import Data
from sparse_xp.tasks.base import Task
from sparse_xp.tasks.given_rows import load_given_rows, load_named_rows
from sparse_xp.tasks.rows import LoadedSplit

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_labelled_rows(task: Task, model: PreTrainedModel, rows: object, data: Data) -> LoadedSplit:
    """Return the evaluation rows, checked, of a task with labels: its own, else those of the model.

    Labels of the model that are only numbers give way to names that come with the rows in order (``ClassLabel``). They
    are never guessed from the labels that occur. Raises UserError as ``load_given_rows`` does.
    """
    if getattr(task, "classes", None) != [] or getattr(task, "problem", "") == "regression":
        return load_given_rows(task, rows, data)
    names = checked_label_names(model)
    numbers_only = are_placeholders(names)
    try:
        return load_given_rows(task.with_classes(names), rows, data)
    except UserError as error:
        if "classes" not in str(error) and not (numbers_only and "no class of" in str(error)):
            raise
        if numbers_only and (named := load_named_rows(task, rows, data)):
            return named
        if numbers_only:
            raise UserError(
                f"{error} The labels of the model are only numbers, so that nothing tells which name is which. Give "
                f"the names in their order: task={type(task).__name__}(..., classes=[...]) of sparse_xp.tasks, or "
                f"model.config.id2label; or give rows with the numbers 0 to {len(names) - 1}."
            ) from error
        raise UserError(f"{error} Here the classes are those of the model, as the task names none.") from error


def checked_label_names(model: PreTrainedModel) -> list[str]:
    """Return the labels of the model in their order. Raises UserError if ``id2label`` does not name each of them."""
    labels: object = model.config.id2label
    if isinstance(labels, Mapping) and set(labels) == set(range(len(labels))) and labels:
        names = [labels[number] for number in range(len(labels))]
        if all(isinstance(name, str | int) and str(name).strip() for name in names):
            return label_names_of(model.config)
    raise UserError(
        f"model.config.id2label={labels!r:.200}: expected a name for each class by its number, counted from 0, such as "
        "{0: 'negative', 1: 'positive'}."
    )
