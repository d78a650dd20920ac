"""Sweeps: from a grid with names to cells, what is done of them, and what is left to do.

A cell is one run. Where its files are follows from its words alone, so a sweep that is started again finds what it did
before: finished cells are skipped, interrupted ones continue. ``sweep.json`` in the directory of the sweep says which
runs are its cells, for the report and for runs that look for their teacher.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from sparse_xp.console import say
from sparse_xp.errors import UserError
from sparse_xp.files import write_text

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

    from sparse_xp.config import Config
    from sparse_xp.published import Published

MANIFEST = "sweep.json"
#: raised when the manifest changes its shape
VERSION = 1
ERROR = "error.txt"
#: set for the process of one cell
CELL = "SPARSE_XP_CELL"


@dataclass
class Cell:
    """One run of a sweep. ``directory``: where it is, relative to the sweep's. ``teacher``: that of its teacher.

    ``changed``: what the command line says other than the file of the sweep, and that can move a number.
    """

    number: int
    name: str
    words: list[str]
    directory: str
    task: str
    model: str
    recipe: str
    profile: str
    seed: int
    epochs: float
    max_train_samples: int | None
    config_hash: str
    command: str
    teacher: str | None = None
    changed: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """A sweep before it runs. ``states`` by the directory of the cell."""

    name: str
    place: Path
    cells: list[Cell]
    published: list[Published] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)


def word(key: str, value: Any) -> str:
    """``KEY=VALUE`` as the command line takes it; a list is what to sweep over. Raises UserError for a mapping."""
    if isinstance(value, dict):
        raise UserError(f"hydra.sweeper: {key} is a mapping. Write its keys with dots: {key}.{next(iter(value), 'x')}.")
    if isinstance(value, list):
        return f"{key}={','.join(plain(each) for each in value)}"
    return f"{key}={plain(value)}"


def plain(value: Any) -> str:
    """A YAML value as a word."""
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def expand(
    params: dict[str, Any], cells: dict[str, dict[str, Any]], arguments: list[str], parser: Any = None
) -> list[tuple[str, list[str]]]:
    """(name, words) of every run: all combinations of ``params``, changed by a cell's own, changed by ``arguments``.

    Without ``cells`` the names are empty. Raises UserError for a sweep over an interval, which only a search can do.
    """
    parser = parser or OverridesParser.create()
    found = []
    for name, own in (cells or {"": {}}).items():
        words = [word(key, value) for key, value in (params | own).items()]
        axes: dict[str, list[str]] = {}
        for override in parser.parse_overrides([*words, *arguments]):
            key = override.get_key_element()
            if override.is_sweep_override():
                if not override.is_discrete_sweep():
                    raise UserError(f"{override.input_line}: an interval is for a search: hydra/sweeper=search.")
                axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            else:
                axes[key] = [f"{key}={override.get_value_element_as_str()}"]
        found += [(name, list(words)) for words in itertools.product(*axes.values())]
    return found


def make_plan(
    config: DictConfig,
    loader: ConfigLoader,
    params: dict[str, Any],
    cells: dict[str, dict[str, Any]],
    arguments: list[str],
    jobs: list[int] | None,
) -> Plan:
    """Compose every run, refuse what cannot be, and look what there is of it already."""
    from sparse_xp.published import check_published, find_published

    parser = OverridesParser.create(config_loader=loader)
    place, name = Path(config.hydra.sweep.dir), str(config.hydra.job.config_name)
    own = sweep_file(config.hydra)
    source = sources(config.hydra)
    listed = expand(params, cells, arguments, parser)
    numbers = range(len(listed)) if jobs is None else jobs
    if wrong := [number for number in numbers if not 0 <= number < len(listed)]:
        raise UserError(
            f"hydra.sweeper.jobs={jobs}: there is no {wrong[0]}, the sweep has jobs 0 to {len(listed) - 1}."
        )
    drafts = [make_cell(number, *listed[number], config, loader, place, source) for number in numbers]
    made = [cell for cell, *_ in drafts]
    for cell in made:
        cell.changed = changes(arguments, bool(cells)) if own else []
    twice: dict[str, Cell] = {}
    for cell in made:
        if other := twice.get(cell.directory):
            raise UserError(
                f"Cells {other.name or other.number} and {cell.name or cell.number} are the same run "
                f"({cell.directory}). Give one of them another value, or take it out."
            )
        twice[cell.directory] = cell
    link_teachers(drafts)
    published = find_published(own)
    if published and own:
        whole = expand(params, cells, [], parser)
        check_published(published, own.with_suffix(".csv"), whole, config.hydra.runtime.choices)
    plan = Plan(name, place, made, published)
    plan.states = {cell.directory: state(place / cell.directory, cell.config_hash) for cell in made}
    if foreign := [each for each, found in plan.states.items() if found == "foreign"]:
        raise UserError(
            f"{place} holds runs of another configuration or another version of sparse_xp: {', '.join(foreign)}. "
            "Move them away, or give the sweep a directory of its own with hydra.sweep.dir=."
        )
    return plan


def changes(arguments: list[str], named: bool) -> list[str]:
    """The words of the command line that make a cell another than the one that the file of the sweep describes.

    ``named``: the cells have names; if not, ``recipe=`` picks some of them.
    """
    where = (
        "seed",
        "task",
        *([] if named else ["recipe"]),
        "log",
        "zoo",
        "data.root",
        "data.cache",
        "data.workers",
        "train.threads",
        "train.device",
    )
    return [each for each in arguments if each.split("=")[0] not in where and not each.startswith(("log.", "hydra"))]


def make_cell(
    number: int, name: str, words: list[str], config: DictConfig, loader: ConfigLoader, place: Path, source: list[str]
) -> tuple[Cell, DictConfig, Config]:
    """Compose one run. Raises UserError, naming the cell, for a configuration that cannot be."""
    composed = compose(words, config, loader)
    try:
        made = to_config(composed)
    except UserError as error:
        raise UserError(f"Cell {name or number} ({' '.join(words)}): {error}") from error
    choices, subdir = composed.hydra.runtime.choices, str(composed.hydra.sweep.subdir)
    cell = Cell(
        number=number,
        name=name or str(choices.recipe),
        words=words,
        directory=subdir,
        task=str(choices.task),
        model=str(choices.model),
        recipe=str(choices.recipe),
        profile=made.profile,
        seed=made.seed,
        epochs=made.train.epochs,
        max_train_samples=made.task.max_train_samples,
        config_hash=hash_of(made),
        command=own_command([*source, *words], place / subdir),
    )
    return cell, composed, made


def compose(words: list[str], config: DictConfig, loader: ConfigLoader) -> DictConfig:
    """A run of the sweep, with Hydra's own settings."""
    composed = loader.load_sweep_config(config, list(words))
    with open_dict(composed):
        composed.hydra.job.num = 0
    return composed


def to_config(composed: DictConfig) -> Config:
    """The dataclasses of a composed run."""
    from sparse_xp.__main__ import to_object

    bare = composed.copy()
    with open_dict(bare):
        del bare["hydra"]
    return to_object(bare)


def hash_of(config: Config) -> str:
    """The hash that the run will have."""
    from sparse_xp.config import result_hash

    return result_hash(config)


def link_teachers(drafts: list[tuple[Cell, DictConfig, Config]]) -> None:
    """Fill in which run each cell learns from, and what its configuration is with that."""
    from sparse_xp.__main__ import dense_run
    from sparse_xp.config import with_teacher

    current, before = HydraConfig.instance(), HydraConfig.instance().cfg
    cells = [cell for cell, *_ in drafts]
    try:
        for cell, composed, made in drafts:
            if made.teacher.source == "dense":
                current.set_config(composed)
                _, _, teacher = dense_run(made, cells)
                cell.teacher = teacher.name
                cell.config_hash = hash_of(with_teacher(made, teacher))
                cell.command = taught_command(cell.command, teacher)
    finally:
        current.cfg = before


def own_command(words: list[str], directory: Path) -> str:
    """The command that makes, or continues, this one run."""
    return shlex.join(["python", "-m", "sparse_xp", *words, f"hydra.run.dir={directory}"])


def taught_command(command: str, teacher: Path) -> str:
    """The command with its teacher by its place."""
    *words, last = shlex.split(command)
    kept = [each for each in words if not each.startswith("teacher=")]
    return shlex.join([*kept, "teacher=checkpoint", f"teacher.path={teacher}", last])


def dense_cell(cells: Sequence[Cell], model: str, words: list[str], seed: int | None) -> Cell | None:
    """The cell that teaches those of ``model`` with ``words`` of task and data: ``recipe=dense`` and nothing else.

    Of several the first, or that of ``seed``. Any other words (of training, say) it may have: they are its recipe's.
    """
    groups = ("task", "data", "profile")
    method = ("sparsity", "quantization", "teacher")

    def scoped(those: list[str]) -> set[str]:
        return {each for each in those if each.split("=")[0].split(".")[0] in groups}

    for cell in cells:
        if cell.recipe != "dense" or cell.model != model or seed not in (None, cell.seed):
            continue
        keys = [each.split("=")[0] for each in cell.words]
        if not any(key[0] in "+~" or key.split(".")[0] in method for key in keys) and scoped(cell.words) == scoped(
            words
        ):
            return cell
    return None


def sweep_file(hydra_config: HydraConf | DictConfig) -> Path | None:
    """The file of the primary configuration; None for that of sparse_xp itself (``-m`` with words alone)."""
    name = hydra_config.job.config_name
    for source in hydra_config.runtime.config_sources:
        path = Path(str(source.path)) / f"{name}.yaml"
        if source.schema == "file" and name != "config" and path.is_file():
            return path
    return None


def is_grid_only(path: Path) -> bool:
    """Whether the file of a sweep changes nothing but Hydra's settings: then its cells can be run without it."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    defaults = [each for each in raw.get("defaults", []) if each not in ("config", "_self_")]
    # A single run asks neither sweeper nor launcher.
    return set(raw) <= {"defaults", "hydra"} and all("hydra/" in "".join(map(str, each)) for each in defaults)


def in_sweep(hydra_config: HydraConf | DictConfig) -> bool:
    """Whether this process makes a cell: as a job of a launcher, or started for it by ``hydra/launcher=slots``."""
    return hydra_config.mode == RunMode.MULTIRUN or CELL in os.environ


def sources(hydra_config: HydraConf | DictConfig) -> list[str]:
    """What the command of a cell needs besides its words: a search path, a sweep that is no mere grid."""
    found = [str(each) for each in hydra_config.overrides.hydra if str(each).startswith("hydra.searchpath=")]
    own = sweep_file(hydra_config)
    if own and not is_grid_only(own):
        return [*found, "--config-dir", str(own.parent), "--config-name", own.stem, "hydra.mode=RUN"]
    folders = [str(each.path) for each in hydra_config.runtime.config_sources if each.provider == "command-line"]
    grid = [own.parent] if own else []
    return [*found, *(word for folder in folders if Path(folder) not in grid for word in ("--config-dir", folder))]


# What there is of a sweep


def state(directory: Path, config_hash: str) -> str:
    """``finished``, ``failed``, ``interrupted``, ``to do``; or ``foreign``: there is a run of another configuration."""
    stored = directory / "config.yaml"
    begun = any((directory / name).exists() for name in ("result.json", "checkpoints", "best", "history.jsonl"))
    if stored.exists() and begun and yaml.safe_load(stored.read_text(encoding="utf-8"))["config_hash"] != config_hash:
        return "foreign"
    if (directory / "result.json").exists():
        return "finished"
    if (directory / ERROR).exists():
        return "failed"
    return "interrupted" if begun else "to do"


def waves(plan: Plan, size: int | None) -> list[list[Cell]]:
    """What is to be launched together: teachers first, then the others, ``size`` at most."""
    teachers = {cell.teacher for cell in plan.cells}
    left = [cell for cell in plan.cells if plan.states[cell.directory] != "finished"]
    groups = [[cell for cell in left if (cell.directory in teachers) == first] for first in (True, False)]
    return [
        group[i : i + (size or len(group))]
        for group in groups
        if group
        for i in range(0, len(group), size or len(group))
    ]


def conclude(plan: Plan, returns: list[JobReturn]) -> None:
    """Say what became of the cells. Raises UserError if one failed, after all have run."""
    plan.states = {cell.directory: state(plan.place / cell.directory, cell.config_hash) for cell in plan.cells}
    say(f"{plan.place}: {counts(plan)}. python -m sparse_xp.report {shlex.quote(str(plan.place))} makes the table.")
    bad = [cell for cell in plan.cells if plan.states[cell.directory] == "failed"]
    if bad:
        lines = [f"  {cell.directory}\n    {last_line(plan.place / cell.directory / ERROR)}" for cell in bad]
        raise UserError(
            f"{len(bad)} of {len(plan.cells)} cells failed (all of it stands in their {ERROR}; the same command tries "
            "them again):\n" + "\n".join(lines)
        )
    if lost := [each for each in returns if each.status == JobStatus.FAILED]:
        _ = lost[0].return_value  # raises: it failed before it came to its own folder


def counts(plan: Plan) -> str:
    """``5 finished, 1 failed``."""
    found = list(plan.states.values())
    return ", ".join(f"{found.count(kind)} {kind}" for kind in dict.fromkeys(sorted(found))) or "no cells"


def tell(plan: Plan) -> None:
    """One line before it begins."""
    say(f"sweep {plan.name}: {len(plan.cells)} cells in {plan.place}: {counts(plan)}")


def last_line(path: Path) -> str:
    """The last line of a traceback: the error itself."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith(" ")), "?")


def write_error(directory: Path, trace: str, command: str) -> None:
    """Record in its own folder that a cell failed."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / ERROR, f"{command}\n\n{trace}")


# The manifest


def write_manifest(plan: Plan) -> None:
    """``sweep.json``: the cells of this and of earlier calls (other seeds, say) that have left something."""
    plan.place.mkdir(parents=True, exist_ok=True)
    now = {cell.directory: cell for cell in plan.cells}
    earlier = [cell for cell in read_manifest(plan.place).cells if (plan.place / cell.directory).is_dir()]
    kept = {cell.directory: cell for cell in earlier} | now
    write_text(
        plan.place / MANIFEST,
        json.dumps(
            {
                "version": VERSION,
                "name": plan.name,
                "cells": [asdict(cell) for cell in kept.values()],
                "published": [asdict(line) for line in plan.published],
            },
            indent=1,
        )
        + "\n",
    )


def read_manifest(place: Path) -> Plan:
    """What ``write_manifest`` wrote, without states; no cells if there is none. Raises UserError for another shape."""
    from sparse_xp.published import Published

    path = place / MANIFEST
    if not path.exists():
        return Plan(place.name, place, [])
    raw = json.loads(path.read_text(encoding="utf-8"))
    try:
        if raw["version"] != VERSION:
            raise KeyError(f"version {raw['version']}")
        cells, published = [Cell(**cell) for cell in raw["cells"]], [Published(**line) for line in raw["published"]]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} was written by another version of sparse_xp ({error}). Move it away: the sweep writes it anew."
        ) from error
    return Plan(raw["name"], place, cells, published)


def show(plan: Plan) -> None:
    """The dry run: every cell, what there is of it, who teaches it, and what the rest will take."""
    from sparse_xp.estimate import estimate, total

    guesses = estimate(plan)
    from sparse_xp.report import markdown

    rows = [
        {
            "job": str(cell.number),
            "cell": cell.name,
            "task": cell.task,
            "model": cell.model,
            "recipe": cell.recipe,
            "seed": str(cell.seed),
            "state": plan.states[cell.directory],
            "teacher": teacher_of(plan, cell),
            "time": guesses[cell.directory].time,
            "disk": guesses[cell.directory].disk,
        }
        for cell in plan.cells
    ]
    say(f"sweep {plan.name} in {plan.place}, nothing is run\n\n{markdown(rows)}\n")
    say(f"{counts(plan)}\n{total(plan, guesses)}")


def teacher_of(plan: Plan, cell: Cell) -> str:
    """The teacher as the dry run shows it."""
    if cell.teacher is None:
        return ""
    own = next((other for other in plan.cells if other.directory == cell.teacher), None)
    return f"job {own.number}" if own else f"made first: {cell.teacher}"
