"""The tasks of ``conf/task/`` by their names, for a program that composes no configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml
from omegaconf import OmegaConf

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.places import CONF
from sparse_xp.tasks import TASKS
from sparse_xp.tasks.base import Task


def find_task(task: str | Task, max_length: int | None = None) -> Task:
    """Return the task of this name, or ``task`` itself. ``max_length``: in place of its own.

    Raises UserError for an unknown name and for a length that is too small.
    """
    if not isinstance(task, str | Task):
        raise UserError(f"task: expected a name or a task of sparse_xp.tasks, not {type(task).__name__}.")
    found = read_named_task(task) if isinstance(task, str) else task
    if max_length is None:
        return found
    if type(max_length) is not int:
        raise UserError(f"max_length={max_length!r}: expected a number of tokens.")
    try:
        return replace(found, max_length=max_length)
    except ValueError as error:
        raise UserError(str(error)) from error


def read_named_task(name: str) -> Task:
    """Return the task of ``conf/task/NAME.yaml``."""
    names = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))
    if name not in names:
        raise UserError(
            f"task={name!r}: there is no such task.{did_you_mean(name, names)} There are: {', '.join(names)}."
        )
    stored: dict[str, Any] = yaml.safe_load((CONF / "task" / f"{name}.yaml").read_text(encoding="utf-8"))
    kind = next(entry["kind@_here_"] for entry in stored.pop("defaults") if "kind@_here_" in entry)
    # The whole configuration: values refer to others by ``${task.KEY}``.
    composed: Any = OmegaConf.create({"task": OmegaConf.merge(OmegaConf.structured(TASKS[kind]), stored)})
    task = OmegaConf.to_object(composed.task)
    assert isinstance(task, Task)
    return task
