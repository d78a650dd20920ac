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
from sparse_xp.modifiers.display import changed_fields
from sparse_xp.recipe.check import load_recipe
from sparse_xp.recipe.file import START_SPARSITY
from sparse_xp.recipe.parsed import ParsedRecipe
from sparse_xp.recipe.tags_own import escaped
from sparse_xp.recipe.text import parse_args


def convert_recipe(
    source: str, args: object = None, *, anchors: bool = False, zoo: str | None = None, name: str | None = None
) -> str:
    """Return the text of ``conf/recipe/NAME.yaml``. ``name``: by default that of the file. Raises UserError."""
    path, parsed = load_recipe(source, args, anchors=anchors, zoo=zoo)
    name = name or re.sub(r"[^\w-]+", "_", "recipe" if "\n" in path else Path(path).stem)
    if not re.fullmatch(r"[A-Za-z0-9_][\w-]*", name) or name == "file":
        raise UserError(
            f"--name {name}: expected letters, digits, - and _ (and not file, which is the name for files)."
        )
    sections = [
        yaml.dump({key: value}, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
        for key, value in config_groups(parsed, name).items()
    ]
    return f"# @package _global_\n{head_comment(source, args, name, parsed.remarks)}" + "\n".join(sections)


def head_comment(source: str, args: object, name: str, remarks: list[str]) -> str:
    """Return the comment at the top: where the recipe comes from, how to run it, and the remarks on its reading."""
    arguments = parse_args(args)
    values = ", ".join(f"{key}={value}" for key, value in arguments.items())
    origin = "the text of a recipe" if "\n" in source else source
    sentences = [f"From the SparseML recipe {origin}{f' with {values}' if arguments else ''}.", *remarks]
    first, *rest = [textwrap.wrap(sentence, 116, break_on_hyphens=False) for sentence in sentences]
    command = f"  python -m sparse_xp task=squad recipe={name}"
    lines = [*first, command, *(line for sentence in rest for line in sentence)]
    return "".join(f"# {line}\n" for line in lines)


def config_groups(parsed: ParsedRecipe, name: str) -> dict[str, Any]:
    """Return the content of the file by key. It gives a run what ``recipe=file`` (``file.with_recipe``) gives it."""
    modifiers = parsed.modifiers
    distils = any(isinstance(each, Distillation | PerLayerDistillation) for each in modifiers.values())
    defaults: list[Any] = [{f"/modifier@recipe.modifiers.{k}": type(each).__name__} for k, each in modifiers.items()]
    defaults += [
        "_self_",
        *([{"override /teacher": "dense"}] if distils else []),
    ]  # Hydra requires overrides last
    recipe: dict[str, Any] = {"name": name}
    if any(isinstance(each, ConstantPruning) and each.min_sparsity for each in modifiers.values()):
        recipe["start_sparsity"] = START_SPARSITY
    if not any(map(drives_rate, modifiers.values())):  # as recipe=file does for a recipe without a rate
        defaults.append({"override /schedule": "linear"})
    if any(isinstance(each, WeightDecay) for each in modifiers.values()):
        recipe["weight_decay"] = None
    recipe["modifiers"] = {key: escaped(changed_fields(each)) for key, each in modifiers.items()}
    recipe["modifiers"] = {key: changed for key, changed in recipe["modifiers"].items() if changed}
    train = {} if parsed.epochs is None else {"epochs": parsed.epochs}
    task = {key: f"${{hyperparameters:transfer,{key}}}" for key in ("batch_size", "learning_rate")}
    return {
        "defaults": defaults,
        "recipe": recipe,
        "teacher": {"distillation": None},  # what distils is among the modifiers
        "train": {**train, **task},
    }


class Dumper(yaml.SafeDumper):
    """A writer that indents lists, as in the rest of ``conf/``, and writes a value that is used twice in full."""

    def ignore_aliases(self, data: object) -> bool:
        """Return True: no aliases."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists too, where PyYAML would not."""
        super().increase_indent(flow, False)
