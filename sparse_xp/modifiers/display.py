"""How a modifier shows itself: on the time line and in the picture of a recipe, and in the log of a run.

Each modifier class carries a ``Display`` and the ``LoggedNumber`` rows of its ``logs`` hook. The viewer
(``recipe.view``), the progress line (``training.loop``) and the report (``report.run_report``) read them, so that a new
modifier is shown everywhere with nothing to edit there. No torch is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from sparse_xp.clock import Clock

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: how a span is drawn: the modifier acts, or its result is held
ACTS, HOLDS = "=", "-"


class Span(NamedTuple):
    """A part of a modifier's bar, in epochs. ``mark``: ``ACTS`` or ``HOLDS``."""

    start: float
    end: float
    mark: str = ACTS


def held_spans(window: tuple[float, float], clock: Clock, *, held: bool = True, by_steps: bool = True) -> list[Span]:
    """Return a span for the ``window``, and behind it one in which the result is ``held`` to the end of the run.

    ``by_steps``: for a modifier that acts in single steps (``updates_window``). Its window ends where its last update
    begins; if that is the last step of the run, the bar extends to the end.
    """
    start, end = window
    if by_steps and clock.end - end <= clock.epoch(1):
        end = clock.end
    return [Span(start, end), *([Span(end, clock.end, HOLDS)] if held and end < clock.end else [])]


@dataclass(frozen=True)
class Display:
    """How the viewer of recipes draws a kind of modifier."""

    #: style of its bar on a terminal, as rich has them
    bar_style: str = ""
    #: colour of its spans in the picture, as matplotlib has them; None: its spans are not drawn
    span_colour: str | None = None
    #: what the table shows for a sparsity that the weights decide
    unknown_sparsity: str = "?"
    #: fields of the modifier that hold names or patterns of parameters, and of modules
    parameter_fields: tuple[str, ...] = ()
    module_fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoggedNumber:
    """A number in a line of history.jsonl, and where a person sees it."""

    #: its key in history.jsonl
    name: str
    #: position among the others, in the progress line and in the report
    order: int
    #: how the progress line shows it; None: not at all
    text: str | None = None
    #: whether the report of the run draws it
    in_report: bool = True
    #: whether the progress line leaves it out while it is 0
    hide_zero: bool = False


#: the numbers that the loop itself logs, without a modifier
OF_EVERY_RUN = (
    LoggedNumber("loss", 0, "loss {:.4f}"),
    LoggedNumber("grad_norm", 90),
    # in fp16 alone
    LoggedNumber("loss_scale", 92, "scale {:g}"),
    LoggedNumber("skipped", 94, "skipped {:.0f}", hide_zero=True),
)


def logged_numbers(of_modifiers: Iterable[tuple[LoggedNumber, ...]]) -> list[LoggedNumber]:
    """Return what a run logs, each number once, in the order in which it is shown.

    ``of_modifiers``: ``modifier.logged`` of its modifiers; those of all ``MODIFIERS`` for what any run may log.
    """
    numbers = dict.fromkeys([*OF_EVERY_RUN, *chain.from_iterable(of_modifiers)])
    return sorted(numbers, key=lambda number: number.order)


def progress_text(line: Mapping[str, Any], numbers: Iterable[LoggedNumber]) -> str:
    """Return a line of history.jsonl as the progress line shows it: ``loss 0.4312  lr 3.00e-05``."""
    shown = [
        each.text.format(line[each.name])
        for each in numbers
        if each.text is not None and each.name in line and (line[each.name] or not each.hide_zero)
    ]
    return "  ".join(shown)


def changed_fields(modifier: DataclassInstance) -> dict[str, Any]:
    """Return the fields that are not at their defaults, and always those without a default."""
    changed: dict[str, Any] = {}
    for each in fields(modifier):
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        value = getattr(modifier, each.name)
        if type(value) is not type(default) or value != default:
            changed[each.name] = value
    return changed
