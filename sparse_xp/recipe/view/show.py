"""``show``: a recipe as a time line and a table, as JSON, or as a picture."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.cli import as_written
from sparse_xp.clock import Clock
from sparse_xp.config import Config
from sparse_xp.console import console
from sparse_xp.errors import UserError
from sparse_xp.history import read_history
from sparse_xp.modifiers import ConstantPruning, Distillation, PerLayerDistillation, Quantization, StructuredPruning
from sparse_xp.modifiers.base import OneTime
from sparse_xp.modifiers.hooks import Recipe
from sparse_xp.modifiers.learning_rate import DrivesRate
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.places import CONF
from sparse_xp.recipe.check import read_plan, timed
from sparse_xp.recipe.view.timeline import Timeline, changed_fields
from sparse_xp.recipe.zoo import STUB
from sparse_xp.settings import Train

if TYPE_CHECKING:
    from sparse_xp.recipe.view.matches import Matches
    from sparse_xp.tasks import Task

WIDTH = 60
STYLES = {DrivesRate: "yellow", Pruning: "red", StructuredPruning: "red", Quantization: "blue", Distillation: "green"}


def show(options: argparse.Namespace) -> None:
    """Do what the command line says."""
    if options.run:
        if not options.png:
            raise UserError(f"--run {options.run}: its curves go into a picture; add --png OUT.png.")
        from sparse_xp.recipe.view.picture import steps_per_epoch

        check_history(Path(options.run))
        options.steps_per_epoch = steps_per_epoch(Path(options.run))
    native = is_native(options.words[0])
    if native:
        config = compose(options.words, options.config_dir)
        if options.args or options.anchors:
            raise UserError(
                "--args and --anchors are for a file. Of a recipe of our own write the values: recipe.NAME=."
            )
        line = timeline_of_config(config, options.steps_per_epoch)
    else:
        if len(options.words) > 1:
            raise UserError(f"{options.words[1]}: want one FILE. Values for its variables: --args NAME=VALUE.")
        line = timeline_of_file(options)
    matches = None
    if options.model:
        from sparse_xp.recipe.view.matches import examine

        matches = examine(line, task_of(options, config if native else None), options.model, options.zoo)
    if options.png:
        from sparse_xp.recipe.view.picture import draw

        draw(line, Path(options.png), Path(options.run) if options.run else None)
    if options.json:
        print(json.dumps(as_data(line, matches), indent=2))
        return
    if options.png:
        console.print(f"picture: {options.png}", markup=False, highlight=False)
    for text, style in [*bars(line), *((row, "") for row in table(line))]:
        console.print(text, style=style, markup=False)
    for text in [*(["", *matches.lines()] if matches else []), *(["", *line.remarks] if line.remarks else [])]:
        console.print(text, markup=False)


def check_history(run: Path) -> None:
    """Raise UserError for lines of ``history.jsonl`` that could not be drawn."""
    path = run / "history.jsonl"
    for entry in read_history(path) if os.path.lexists(path) else []:
        for name in ("step", "epoch", "loss", "lr", "sparsity"):
            value = entry.get(name, 1)
            whole = name in ("step", "epoch")
            if not isinstance(value, int | float) or (whole and not 0 < value < 1e9):
                raise UserError(
                    f"{path} is damaged (a line has {name} {value!r:.40}). Restore it, or name another --run."
                )


def is_native(word: str) -> bool:
    """Whether the first word is one of ``python -m sparse_xp``, and no file."""
    text = "\n" in word or word.startswith(STUB)
    return "=" in word and not text and Path(word).suffix not in (".md", ".yaml", ".yml")


def compose(words: list[str], config_dir: str | None = None) -> Config:
    """The configuration that ``python -m sparse_xp`` would make of these words."""
    import hydra

    from sparse_xp.choices import check_words
    from sparse_xp.compose import to_object
    from sparse_xp.recipe.file import resolve

    if config_dir:
        if not Path(config_dir).is_dir():
            raise UserError(f"--config-dir {config_dir}: there is no such directory.")
        words = [*words, f"hydra.searchpath=['file://{Path(config_dir).resolve()}']"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="show"):
        words = as_written(words)
        check_words(words)
        return resolve(to_object(hydra.compose("config", overrides=words)))


def task_of(options: argparse.Namespace, config: Config | None) -> Task:
    """The task whose head a model gets: the named one, that of a recipe of ours, or squad."""
    if config and not options.task:
        return config.task
    return compose([f"task={options.task or 'squad'}"], options.config_dir).task


def timeline_of_file(options: argparse.Namespace) -> Timeline:
    """A recipe of SparseML on its clock."""
    path, plan = read_plan(options.words[0], options.args, anchors=options.anchors, zoo=options.zoo)
    name = "recipe" if "\n" in path else Path(path).stem
    remarks = list(plan.remarks)
    if not plan.epochs:
        remarks.append(f"{name} sets no length: train.epochs counts, shown here as {Train().epochs:g}")
    if not any(isinstance(modifier, DrivesRate) for modifier in plan.modifiers.values()):
        remarks.append(f"{name} drives no learning rate: train.learning_rate and train.warmup count")
    clock = Clock.of(plan.epochs or Train().epochs, options.steps_per_epoch)
    tags = {each: tagged.name for each, tagged in plan.sources.items()}
    return Timeline(name, clock, timed(path, plan, clock), tags=tags, remarks=remarks)


def timeline_of_config(config: Config, steps_per_epoch: int) -> Timeline:
    """A recipe of ours on its clock."""
    clock = Clock.of(config.train.epochs, steps_per_epoch)
    try:
        recipe = Recipe(config.modifiers(), clock)
    except UserError as error:
        told = f"Here an epoch has {steps_per_epoch} steps; --steps-per-epoch N says how many it really has."
        raise UserError(f"{error} {told}") from error
    return Timeline(config.recipe.name, clock, recipe, config.train.learning_rate, remarks=config.recipe.remarks)


def as_data(line: Timeline, matches: Matches | None = None) -> dict[str, Any]:
    """Everything, for a program."""
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
    found = {"name": line.name, "epochs": line.clock.end, "modifiers": modifiers, "remarks": line.remarks}
    return found | ({"model": asdict(matches)} if matches else {})


def bars(line: Timeline) -> list[tuple[str, str]]:
    """A bar for each modifier, with its style, under a scale of epochs."""
    names = {name: short(name) for name in line.modifiers}
    margin = max(map(len, names.values()), default=0)
    end = f"{line.clock.end:g}"
    title = f"{line.name}: {end} epochs of {line.clock.steps_per_epoch} steps  (= acts, - what it did is held)"
    found = [(title, "bold"), ("", ""), (f"{'':{margin}}  0{end:>{WIDTH - 1}}", "")]
    for name, modifier in line.modifiers.items():
        start, stop = modifier.window(line.clock)
        when = f"at {start:g}" if isinstance(modifier, OneTime) else f"{start:g} to {stop:g}"
        style = next((style for kind, style in STYLES.items() if isinstance(modifier, kind)), "")
        found.append((f"{names[name]:{margin}} |{bar(line, name)}| {when}  {summary(modifier)}".rstrip(), style))
    return found


def bar(line: Timeline, name: str) -> str:
    """``WIDTH`` characters over the whole run; what acts at all has at least one."""
    cells = [" "] * WIDTH
    for start, end, char in line.spans(name):
        if start == end and not isinstance(line.modifiers[name], OneTime):
            continue
        first = min(WIDTH - 1, round(start / line.clock.end * WIDTH))
        last = max(first + 1, round(end / line.clock.end * WIDTH))
        cells[first:last] = char * (min(last, WIDTH) - first)
    return "".join(cells)


def short(name: str) -> str:
    """A modifier's name without the group that most are in."""
    return name.removeprefix("recipe.modifiers.").removeprefix("recipe.")


def summary(modifier: Any) -> str:
    """Its fields that are not at their defaults; of a list of names how many there are."""
    values = {name: value for name, value in changed_fields(modifier).items() if name not in ("start", "end")}
    texts = {
        name: f"({len(value)})" if isinstance(value, list) and len(", ".join(map(str, value))) > 30 else f"{value}"
        for name, value in values.items()
    }
    return " ".join(f"{name}={text}" for name, text in texts.items())


def table(line: Timeline) -> list[str]:
    """What holds when each epoch begins, and in the last step."""
    pruners = list(line.levels)
    heads = ["epoch", "learning rate", *map(short, pruners)]
    heads += ["quantization"] if line.of(Quantization) else []
    heads += ["hardness"] if line.of(Distillation) else []
    rows = []
    for moment in line.moments():
        last = moment.step == line.clock.total_steps - 1
        cells = ["last step" if last else f"{moment.epoch:g}", "-" if moment.rate is None else f"{moment.rate:.3g}"]
        cells += [level(line.modifiers[name], moment.sparsity[name]) for name in pruners]
        cells += [moment.quantization] if moment.quantization else []
        rows.append([*cells, *([] if moment.hardness is None else [f"{moment.hardness:g}"])])
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in (heads, *rows)]
    layers = [f"{short(name)}: gain {each.gain:g}" for name, each in line.of(PerLayerDistillation).items()]
    return ["", *lines, *layers]


def level(modifier: Any, sparsity: float | None) -> str:
    """A scheduled sparsity; ``kept``: the zeros that the weights have, ``?``: on the way from them."""
    if sparsity is None:
        return "kept" if isinstance(modifier, ConstantPruning) else "?"
    return f"{sparsity:.2%}"
