"""SparseML recipes as text: YAML or Markdown front matter, ``!Tags``, variables, ``eval(...)``, stages, arguments.

``read_recipe`` goes through ``loader`` (YAML), ``sections`` (stages and arguments) and ``scope`` (variables). The
result is a flat list of tags with plain values, each with its line and column; ``parsed`` makes modifiers of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from sparse_xp.errors import UserError
from sparse_xp.recipe.expressions import as_number
from sparse_xp.recipe.loader import MAX_BYTES, RecipeError, TaggedMapping, as_recipe_error, open_loader, position_in
from sparse_xp.recipe.scope import Scope
from sparse_xp.recipe.sections import sections_of

#: a line that begins or ends front matter
_FENCE = re.compile(r"^[ \t]*(---|\+\+\+)", re.MULTILINE)


@dataclass
class Document:
    """A recipe with every variable and expression resolved.

    ``name``: its path, or ``recipe`` for text. ``modifiers``: its tags in order, those of all stages. ``variables``:
    those outside of stages. ``remarks``: what the user should know of how it was read.
    """

    name: str
    modifiers: list[TaggedMapping] = field(default_factory=list)
    variables: dict[str, object] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def read_recipe(source: str, args: object = None, *, strict: bool = False, anchors: bool = False) -> Document:
    """Read ``source``: a path ending in .md, .yaml or .yml, or (if it has a line break) the text of a recipe.

    ``args``: values for variables of the recipe, as a mapping, JSON text, or ``name=value,name=value``. ``anchors``:
    ``args`` also replace values referenced through an alias (``*name``); SparseML did not do that. ``strict``: each
    remark is an error. Raises RecipeError, or UserError if there is no such file.
    """
    arguments = parse_args(args)
    name, text, first_line = load_text(source)
    document = Document(name)
    try:
        loader = open_loader(name, text, first_line)
        (top, *stages), document.remarks = sections_of(name, loader, loader.get_single_node(), arguments, anchors)
        scope = Scope(name, top)
        document.variables = scope.variables()
        document.modifiers = scope.modifiers()
        for stage in stages:
            inner = Scope(name, stage, scope)
            inner.variables()  # reports a wrong one even if no modifier uses it
            document.modifiers += inner.modifiers()
    except RecursionError as error:
        raise RecipeError(name, None, "lists, names or expressions nested too deep") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise as_recipe_error(name, error, first_line) from error
    if not document.modifiers:
        raise RecipeError(name, None, "no modifiers: expected a list such as 'modifiers:' of '- !NameModifier' entries")
    if strict and document.remarks:
        raise UserError(" ".join(document.remarks))
    return document


def load_text(source: str) -> tuple[str, str, int]:
    """Return a name for messages, the YAML in ``source``, and the line of the file on which it begins (from 0)."""
    if "\n" in source or "\r" in source:
        return "recipe", *_front_matter("recipe", source, required=False)
    path = Path(source)
    if path.suffix not in (".md", ".yaml", ".yml"):
        raise UserError(f"recipe.path={source}: expected a file ending in .md, .yaml or .yml, or a zoo: stub.")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"recipe.path={source}: {getattr(error, 'strerror', None) or error}.") from error
    if len(data) > MAX_BYTES:
        raise RecipeError(source, None, f"a recipe may have {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        raise RecipeError(source, position_in(before, len(before)), f"not UTF-8 (byte {error.start})") from error
    return source, *(_front_matter(source, text, required=True) if path.suffix == ".md" else (text, 0))


def _front_matter(name: str, text: str, required: bool) -> tuple[str, int]:
    """Return the text between the first two lines that begin with --- or +++, and the line on which it begins."""
    fences = list(_FENCE.finditer(text))
    if len(fences) >= 2:
        begin, stop = fences[0].end(), fences[1].start()
        return text[begin:stop], text.count("\n", 0, begin)
    if not required:
        return text, 0
    problem = "front matter that never ends" if fences else "no front matter"
    position = position_in(text, fences[0].start(1)) if fences else None
    raise RecipeError(name, position, f"{problem}: expected the recipe between two lines '---'")


def parse_args(args: object) -> dict[str, object]:
    """Return ``recipe.args`` as a mapping, from a mapping, JSON text, or ``name=value,name=value``."""
    if args is None or isinstance(args, Mapping):
        return {str(key): value for key, value in (args or {}).items()}
    text = str(args).strip()
    try:
        arguments = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        arguments = dict(map(_argument, text.split(",")))
    if not isinstance(arguments, dict):
        raise UserError(
            f"recipe.args={text[:80]}: expected '{{num_epochs: 5, init_lr: 1e-4}}' or 'num_epochs=5,init_lr=1e-4'."
        )
    return arguments


def _argument(text: str) -> tuple[str, str | float]:
    """Return name and value of ``name=value``; the value as a number if it is one."""
    match = re.fullmatch(r"(\w+)\s*[=:](.*)", text.strip(), re.DOTALL)
    if not match:
        raise UserError(f"recipe.args: cannot read {text.strip()[:80]!r}: expected name=value,name=value, or JSON.")
    value = match[2].strip()
    number = as_number(value)
    return match[1], value if number is None else number
