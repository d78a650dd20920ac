"""``show``: a recipe as a time line and a table, as JSON, or as a picture.

Two kinds of recipe come in: a file of SparseML, and the overrides of ``python -m sparse_xp`` for a recipe of our own
groups. Both become a ``Timeline``; ``render`` makes text of it, ``picture`` draws it, ``matches`` looks into a model.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import hydra

from sparse_xp.choices import check_overrides
from sparse_xp.cli import quote_paths
from sparse_xp.clock import Clock
from sparse_xp.compose import to_object
from sparse_xp.config import Config, register
from sparse_xp.console import console
from sparse_xp.errors import UserError
from sparse_xp.files.json_text import to_json
from sparse_xp.history import read_history
from sparse_xp.modifiers.learning_rate import RateModifier
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.places import CONF
from sparse_xp.recipe.check import in_order, load_recipe
from sparse_xp.recipe.file import resolve
from sparse_xp.recipe.view.matches import match_patterns
from sparse_xp.recipe.view.picture import draw, measured_steps_per_epoch
from sparse_xp.recipe.view.render import bar_lines, epoch_table, timeline_data
from sparse_xp.recipe.view.timeline import Timeline
from sparse_xp.recipe.zoo import STUB
from sparse_xp.settings import Train

if TYPE_CHECKING:
    from sparse_xp.recipe.view.matches import Matches
    from sparse_xp.tasks import Task


def show_recipe(options: argparse.Namespace) -> None:
    """Run ``python -m sparse_xp.recipe show`` with these options."""
    if options.run:
        if not options.png:
            raise UserError(f"--run {options.run}: its curves go into a picture; add --png OUT.png.")
        check_history(Path(options.run))
        options.steps_per_epoch = measured_steps_per_epoch(Path(options.run))
    config = compose_overrides(options) if are_overrides(options.recipe[0]) else None
    line = timeline_of_config(config, options.steps_per_epoch) if config else timeline_of_file(options)
    matches = matches_of(options, line, config)
    if options.png:
        draw(line, Path(options.png), Path(options.run) if options.run else None)
    if options.json:
        print(to_json(timeline_data(line, matches), indent=2))
        return
    if options.png:
        console.print(f"picture: {options.png}", markup=False, highlight=False)
    print_timeline(line, matches)


def print_timeline(line: Timeline, matches: Matches | None) -> None:
    """Print bars, table, what the patterns match if that is known, and remarks."""
    for text, style in [*bar_lines(line), *((row, "") for row in epoch_table(line))]:
        console.print(text, style=style, markup=False)
    for text in [*(["", *matches.lines()] if matches else []), *(["", *line.remarks] if line.remarks else [])]:
        console.print(text, markup=False)


def check_history(run: Path) -> None:
    """Raise UserError for lines of ``history.jsonl`` that could not be drawn."""
    path = run / "history.jsonl"
    for entry in read_history(path) if os.path.lexists(path) else []:
        for name in ("step", "epoch", "loss", "lr", "sparsity"):
            value = entry.get(name, 1)
            counts = name in ("step", "epoch")
            if not isinstance(value, int | float) or (counts and not 0 < value < 1e9):
                raise UserError(
                    f"{path} is damaged (a line has {name} {value!r:.40}). Restore it, or name another --run."
                )


def are_overrides(word: str) -> bool:
    """Return whether the first argument is an override (``recipe=pruned80``), and neither a file nor a text."""
    text = "\n" in word or word.startswith(STUB)
    return "=" in word and not text and Path(word).suffix not in (".md", ".yaml", ".yml")


def compose_overrides(options: argparse.Namespace) -> Config:
    """Return the configuration of a recipe of our own groups. Raises UserError for options that are for files."""
    config = compose_config(options.recipe, options.config_dir)
    if options.args or options.anchors:
        raise UserError("--args and --anchors are for a file. Of a recipe of our own write the values: recipe.NAME=.")
    return config


def compose_config(overrides: list[str], config_dir: str | None = None) -> Config:
    """Return the configuration that ``python -m sparse_xp`` would make of these overrides."""
    if config_dir:
        if not Path(config_dir).is_dir():
            raise UserError(f"--config-dir {config_dir}: there is no such directory.")
        overrides = [*overrides, f"hydra.searchpath=['file://{Path(config_dir).resolve()}']"]
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="show"):
        overrides = quote_paths(overrides)
        check_overrides(overrides)
        return resolve(to_object(hydra.compose("config", overrides=overrides)))


def matches_of(options: argparse.Namespace, line: Timeline, config: Config | None) -> Matches | None:
    """Return what the patterns match in ``--model``; None without that option.

    The model gets the head of ``--task``, else of the task in ``config``, else of squad.
    """
    if not options.model:
        return None
    # torch is imported late: a time line needs none

    return match_patterns(line, task_of_model(options, config), options.model, options.zoo)


def task_of_model(options: argparse.Namespace, config: Config | None) -> Task:
    """Return the task whose head the model of ``--model`` gets."""
    if config and not options.task:
        return config.task
    return compose_config([f"task={options.task or 'squad'}"], options.config_dir).task


def timeline_of_file(options: argparse.Namespace) -> Timeline:
    """Return the time line of a recipe of SparseML, with remarks on what it leaves to the configuration."""
    if len(options.recipe) > 1:
        raise UserError(f"{options.recipe[1]}: expected one FILE. Values for its variables: --args NAME=VALUE.")
    path, parsed = load_recipe(options.recipe[0], options.args, anchors=options.anchors, zoo=options.zoo)
    name = "recipe" if "\n" in path else Path(path).stem
    remarks = list(parsed.remarks)
    if not parsed.epochs:
        remarks.append(f"{name} sets no length: train.epochs counts, shown here as {Train().epochs:g}")
    if not any(isinstance(modifier, RateModifier) for modifier in parsed.modifiers.values()):
        remarks.append(f"{name} drives no learning rate: train.learning_rate and train.warmup count")
    clock = Clock.of(parsed.epochs or Train().epochs, options.steps_per_epoch)
    tags = {modifier_name: tagged.name for modifier_name, tagged in parsed.sources.items()}
    return Timeline(name, clock, in_order(path, parsed, clock), tags=tags, remarks=remarks)


def timeline_of_config(config: Config, steps_per_epoch: int) -> Timeline:
    """Return the time line of a composed configuration. Raises UserError if a window is impossible."""
    clock = Clock.of(config.train.epochs, steps_per_epoch)
    try:
        modifiers = ModifierList(config.modifiers(), clock)
    except UserError as error:
        hint = f"Here an epoch has {steps_per_epoch} steps; --steps-per-epoch N says how many it really has."
        raise UserError(f"{error} {hint}") from error
    return Timeline(config.recipe.name, clock, modifiers, config.train.learning_rate, remarks=config.recipe.remarks)
