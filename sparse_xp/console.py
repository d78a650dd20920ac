"""What a person sees of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

#: how a logged number is shown; others are kept for history.jsonl and the tracker
FORMATS = {
    "loss": "loss {:.4f}",
    "loss_task": "task {:.4f}",
    "loss_distillation": "distil {:.4f}",
    "loss_layers": "layers {:.4f}",
    "lr": "lr {:.2e}",
    "sparsity": "sparsity {:.1%}",
    "quantized": "int{:g}",
}


def say(text: str) -> None:
    """One line."""
    console.print(text, markup=False)


def show_config(fields: dict[str, Any]) -> None:
    """The resolved configuration as a tree, its leaves on shared lines and what is not set left out."""
    text = yaml.safe_dump(set_only(fields), sort_keys=False, default_flow_style=None, width=110)
    console.print(Syntax(text, "yaml", background_color="default"))


def set_only(value: Any) -> Any:
    """Plain values without those that are None or empty."""
    if isinstance(value, dict):
        kept = {str(key): set_only(child) for key, child in value.items()}
        return {key: child for key, child in kept.items() if child is not None and child != [] and child != {}}
    if isinstance(value, list | tuple):
        return [set_only(child) for child in value]
    return value.value if isinstance(value, Enum) else value


def describe(line: dict[str, Any]) -> str:
    """A logged line as a person reads it. Integers are named from where they begin."""
    shown = [name for name in FORMATS if name in line and (name != "quantized" or line[name])]
    return "  ".join(FORMATS[name].format(line[name]) for name in shown)


def watch(items: Sequence[Any], what: str) -> Iterable[Any]:
    """The items, with a bar on a terminal."""
    return track(items, what, console=console, disable=not console.is_terminal, transient=True)


def count(items: Iterable[T], what: str) -> Iterator[T]:
    """Items of which nobody knows how many there are, with a counter on a terminal."""
    with Progress(
        TextColumn(what),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        yield from progress.track(items, total=None)


class Bar:
    """Progress of training: epoch, step, loss, learning rate, sparsity and the time that is left."""

    def __init__(self, total: int, done: int, show: bool = True):
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

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def advance(self, step: int, epoch: float) -> None:
        """One more step is done."""
        self.epoch = epoch
        self.progress.update(self.task, completed=step, epoch=epoch)

    def tell(self, line: dict[str, Any]) -> None:
        """A logged line: on the bar, or as a line of text about twenty times a run; evaluations always as text."""
        if "metrics" in line:
            scores = "  ".join(f"{name} {value:.2f}" for name, value in line["metrics"].items())
            if self.live or self.plain:
                note = "" if line["valid"] else "  (before the end of the recipe: not kept)"
                console.print(f"  epoch {line['epoch']:.2f}  step {line['step']}  {scores}{note}", markup=False)
            return
        self.progress.update(self.task, description=describe(line))
        if self.plain and (line["step"] - self.printed >= self.total / 20 or line["step"] == self.total):
            self.printed = line["step"]
            left = self.progress.tasks[self.task].time_remaining
            eta = f"  ETA {left:.0f} s" if left else ""
            console.print(
                f"  epoch {line['epoch']:.2f}  step {line['step']}/{self.total}  {describe(line)}{eta}",
                markup=False,
            )


def hush_libraries() -> None:
    """No bars and warnings of the libraries between our lines: what matters of them is in ours."""
    import datasets
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    if not console.is_terminal:
        datasets.disable_progress_bars()
