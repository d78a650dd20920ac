"""A time line as text for a terminal, and as data for a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sparse_xp.modifiers import Distillation, Modifier, PerLayerDistillation, Quantization
from sparse_xp.modifiers.base import OneTime
from sparse_xp.modifiers.display import changed_fields
from sparse_xp.recipe.view.timeline import Timeline

if TYPE_CHECKING:
    # torch is imported late: only ``show --model`` needs a model
    from sparse_xp.recipe.view.matches import Matches

#: characters of a bar
WIDTH = 60


def timeline_data(line: Timeline, matches: Matches | None = None) -> dict[str, Any]:
    """Return everything that ``show --json`` prints."""
    modifiers = [
        {
            "name": name,
            "kind": type(modifier).__name__,
            "tag": line.tags.get(name),
            "window": list(modifier.window(line.clock)),
            **asdict(modifier),
        }
        for name, modifier in line.modifiers.items()
    ]
    data = {"name": line.name, "epochs": line.clock.end, "modifiers": modifiers, "remarks": line.remarks}
    return data | ({"model": asdict(matches)} if matches else {})


def bar_lines(line: Timeline) -> list[tuple[str, str]]:
    """Return a bar for each modifier under a scale of epochs, each line with its style."""
    names = {name: short_name(name) for name in line.modifiers}
    margin = max(map(len, names.values()), default=0)
    end = f"{line.clock.end:g}"
    title = f"{line.name}: {end} epochs of {line.clock.steps_per_epoch} steps  (= acts, - what it did is held)"
    lines = [(title, "bold"), ("", ""), (f"{'':{margin}}  0{end:>{WIDTH - 1}}", "")]
    for name, modifier in line.modifiers.items():
        start, stop = modifier.window(line.clock)
        time = f"at {start:g}" if isinstance(modifier, OneTime) else f"{start:g} to {stop:g}"
        text = f"{names[name]:{margin}} |{bar(line, modifier)}| {time}  {settings_text(modifier)}"
        lines.append((text.rstrip(), modifier.display.bar_style))
    return lines


def bar(line: Timeline, modifier: Modifier) -> str:
    """Return ``WIDTH`` characters over the whole run. A modifier that acts at all has at least one."""
    cells = [" "] * WIDTH
    for start, end, mark in modifier.spans(line.clock):
        if start == end and not isinstance(modifier, OneTime):
            continue
        first = min(WIDTH - 1, round(start / line.clock.end * WIDTH))
        last = max(first + 1, round(end / line.clock.end * WIDTH))
        cells[first:last] = mark * (min(last, WIDTH) - first)
    return "".join(cells)


def short_name(name: str) -> str:
    """Return a modifier's name without the configuration group that most are in."""
    return name.removeprefix("recipe.modifiers.").removeprefix("recipe.")


def settings_text(modifier: Modifier) -> str:
    """Return the fields that are not at their defaults; of a long list the number of its items."""
    values = {name: value for name, value in changed_fields(modifier).items() if name not in ("start", "end")}
    texts = {
        name: f"({len(value)})" if isinstance(value, list) and len(", ".join(map(str, value))) > 30 else f"{value}"
        for name, value in values.items()
    }
    return " ".join(f"{name}={text}" for name, text in texts.items())


def epoch_table(line: Timeline) -> list[str]:
    """Return the lines of a table: what holds when each epoch begins, and in the last step."""
    pruners = list(line.levels)
    head = ["epoch", "learning rate", *map(short_name, pruners)]
    head += ["quantization"] if line.of(Quantization) else []
    head += ["hardness"] if line.of(Distillation) else []
    rows = []
    for moment in line.moments():
        last = moment.step == line.clock.total_steps - 1
        cells = ["last step" if last else f"{moment.epoch:g}", "-" if moment.rate is None else f"{moment.rate:.3g}"]
        cells += [scheduled_sparsity_text(line.modifiers, name, moment.sparsity[name]) for name in pruners]
        cells += [moment.quantization] if moment.quantization else []
        rows.append([*cells, *([] if moment.hardness is None else [f"{moment.hardness:g}"])])
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in (head, *rows)]
    gains = [f"{short_name(name)}: gain {each.gain:g}" for name, each in line.of(PerLayerDistillation).items()]
    return ["", *lines, *gains]


def scheduled_sparsity_text(modifiers: Mapping[str, Modifier], name: str, sparsity: float | None) -> str:
    """Return a scheduled sparsity, or the word of the modifier for one that the weights decide."""
    return modifiers[name].display.unknown_sparsity if sparsity is None else f"{sparsity:.2%}"
