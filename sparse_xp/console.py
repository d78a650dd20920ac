"""Print the progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from types import TracebackType
from typing import Any, TypeVar

import yaml
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)
from rich.syntax import Syntax

T = TypeVar("T")
console = Console(soft_wrap=True, highlight=False)


def say(text: str) -> None:
    """Print one line."""
    console.print(text, markup=False)


def show_config(fields: dict[str, Any]) -> None:
    """Print the resolved configuration as YAML, without keys that are not set."""
    text = yaml.safe_dump(_without_unset(fields), sort_keys=False, default_flow_style=None, width=110)
    console.print(Syntax(text, "yaml", background_color="default"))


def _without_unset(value: object) -> object:
    """Return ``value`` without members that are None or empty."""
    if isinstance(value, dict):
        kept = {str(key): _without_unset(child) for key, child in value.items()}
        return {key: child for key, child in kept.items() if child is not None and child != [] and child != {}}
    if isinstance(value, list | tuple):
        return [_without_unset(child) for child in value]
    return value.value if isinstance(value, Enum) else value


def progress_bar(items: Sequence[Any], what: str) -> Iterable[Any]:
    """Yield the items, with a progress bar on a terminal."""
    return track(items, what, console=console, disable=not console.is_terminal, transient=True)


def progress_counter(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield items of unknown number, with a counter on a terminal."""
    with Progress(
        TextColumn(what),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        yield from progress.track(items, total=None)


class TrainingProgress:
    """Progress of training: epoch, step, the logged numbers and the time that is left.

    ``describe``: the text for a logged line of numbers (``modifiers.display.progress_text``: modifiers know their own).
    """

    def __init__(self, total: int, done: int, describe: Callable[[dict[str, Any]], str], show: bool = True):
        self.describe = describe
        self.live = show and console.is_terminal
        self.plain = show and not console.is_terminal
        self.total = total
        self.epoch = 0.0
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]:.2f}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            disable=not self.live,
        )
        self.task = self.progress.add_task("", total=total, completed=done, epoch=0.0)
        self.printed = done

    def __enter__(self) -> TrainingProgress:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def advance(self, step: int, epoch: float) -> None:
        """Show that ``step`` steps are done."""
        self.epoch = epoch
        self.progress.update(self.task, completed=step, epoch=epoch)

    def show(self, line: dict[str, Any]) -> None:
        """Show a logged line: on the bar, or as text about twenty times a run. Evaluations are always text."""
        if "metrics" in line:
            scores = "  ".join(f"{name} {value:.2f}" for name, value in line["metrics"].items())
            if self.live or self.plain:
                note = "" if line["valid"] else "  (before the end of the recipe: not kept)"
                console.print(f"  epoch {line['epoch']:.2f}  step {line['step']}  {scores}{note}", markup=False)
            return
        self.progress.update(self.task, description=self.describe(line))
        if self.plain and (line["step"] - self.printed >= self.total / 20 or line["step"] == self.total):
            self.printed = line["step"]
            left = self.progress.tasks[self.task].time_remaining
            eta = f"  ETA {left:.0f} s" if left else ""
            console.print(
                f"  epoch {line['epoch']:.2f}  step {line['step']}/{self.total}  {self.describe(line)}{eta}",
                markup=False,
            )


def silence_libraries() -> None:
    """Turn off progress bars and warnings of transformers and datasets."""
    import datasets
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    if not console.is_terminal:
        datasets.disable_progress_bars()
