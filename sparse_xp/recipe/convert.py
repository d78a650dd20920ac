"""``convert``: a SparseML recipe as a recipe of our own groups, which trains to the same weights."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import yaml

from sparse_xp.config import drives_rate
from sparse_xp.errors import UserError
from sparse_xp.modifiers import ConstantPruning, Distillation, PerLayerDistillation, WeightDecay
from sparse_xp.recipe.check import read_plan
from sparse_xp.recipe.file import START_SPARSITY
from sparse_xp.recipe.sparseml import Plan, literal
from sparse_xp.recipe.text import parse_args
from sparse_xp.recipe.view.timeline import changed_fields

#: what recipe=file has where the recipe itself is silent
SEGMENTS = {
    "warmup": {"shape": "linear", "init_lr": 0.0, "final_lr": "${train.learning_rate}", "end": "${train.warmup}"},
    "decay": {"shape": "linear", "init_lr": "${train.learning_rate}", "final_lr": 0.0, "start": "${train.warmup}"},
}


def convert(
    source: str, args: Any = None, *, anchors: bool = False, zoo: str | None = None, name: str | None = None
) -> str:
    """The text of ``conf/recipe/NAME.yaml``. Raises UserError."""
    path, plan = read_plan(source, args, anchors=anchors, zoo=zoo)
    name = name or re.sub(r"[^\w-]+", "_", "recipe" if "\n" in path else Path(path).stem)
    if not re.fullmatch(r"[A-Za-z0-9_][\w-]*", name) or name == "file":
        raise UserError(f"--name {name}: want letters, digits, - and _ (and not file, which is the name for files).")
    arguments = parse_args(args)
    values = ", ".join(f"{key}={value}" for key, value in arguments.items())
    origin = "the text of a recipe" if "\n" in source else source
    said = [f"From the SparseML recipe {origin}{f' with {values}' if arguments else ''}.", *plan.remarks]
    first, *others = [textwrap.wrap(each, 116, break_on_hyphens=False) for each in said]
    lines = [*first, f"  python -m sparse_xp task=squad recipe={name}", *(line for each in others for line in each)]
    comments = "".join(f"# {line}\n" for line in lines)
    sections = [
        yaml.dump({key: value}, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
        for key, value in fields_of(plan, name).items()
    ]
    return f"# @package _global_\n{comments}" + "\n".join(sections)


def fields_of(plan: Plan, name: str) -> dict[str, Any]:
    """What the file says: with it a run has the modifiers, the length and the numbers that ``recipe=file`` gives it."""
    modifiers = plan.modifiers
    distils = any(isinstance(each, Distillation | PerLayerDistillation) for each in modifiers.values())
    defaults: list[Any] = [{f"/modifier@recipe.modifiers.{k}": type(each).__name__} for k, each in modifiers.items()]
    defaults += ["_self_", *([{"override /teacher": "dense"}] if distils else [])]  # Hydra wants overrides last
    recipe: dict[str, Any] = {"name": name}
    if any(isinstance(each, ConstantPruning) and each.min_sparsity for each in modifiers.values()):
        recipe["start_sparsity"] = START_SPARSITY
    if not any(map(drives_rate, modifiers.values())):
        recipe["learning_rate"] = SEGMENTS
    if any(isinstance(each, WeightDecay) for each in modifiers.values()):
        recipe["weight_decay"] = None
    recipe["modifiers"] = {key: literal(changed_fields(each)) for key, each in modifiers.items()}
    recipe["modifiers"] = {key: changed for key, changed in recipe["modifiers"].items() if changed}
    train = {} if plan.epochs is None else {"epochs": plan.epochs}
    task = {key: f"${{task.transfer.{key}}}" for key in ("batch_size", "learning_rate")}
    return {
        "defaults": defaults,
        "recipe": recipe,
        "teacher": {"distillation": None},  # what distils is among the modifiers
        "train": {**train, **task},
    }


class Dumper(yaml.SafeDumper):
    """Lists are indented, as in the rest of ``conf/``, and what stands in two places is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)
