"""SparseML recipes as text: YAML or Markdown front matter, ``!Tags``, variables, ``eval(...)``, stages, arguments.

What comes out is a flat list of tags with plain values and the place where each stands. A recipe is untrusted: it is
read by a safe YAML loader of our own within fixed bounds of size, depth and number of values.
"""

from __future__ import annotations

import json
import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.recipe.expressions import ExpressionError, evaluate, names_in

MAX_BYTES, MAX_DEPTH, MAX_VALUES = 128 * 1024, 40, 20_000

_FENCE = re.compile(r"^[ \t]*(---|\+\+\+)", re.MULTILINE)
_EVAL = re.compile(r"eval\((.*)\)", re.DOTALL)
Place = tuple[int, int]


class RecipeError(UserError):
    """What is wrong with a recipe, with its file, line and column where there is one."""

    def __init__(self, name: str, place: Place | None, message: str):
        where = f"{name}:{place[0]}:{place[1]}" if place else name
        super().__init__(f"{where}: {message}")


@dataclass(frozen=True)
class Tagged:
    """``!name`` with the mapping under it; ``places``: line and column of each value, ``""`` for the tag itself."""

    name: str
    fields: dict[str, Any]
    places: dict[str, Place]


@dataclass
class Document:
    """A recipe with every variable and expression resolved. ``remarks``: what a person should know of its reading."""

    name: str
    modifiers: list[Tagged] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML has it (the last of equal keys wins), tags as ``Tagged``, 5e-5 as a number, within bounds."""

    depth = values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        self.values += 1
        if self.depth > MAX_DEPTH or self.values > MAX_VALUES:
            what = f"nested deeper than {MAX_DEPTH}" if self.depth > MAX_DEPTH else f"more than {MAX_VALUES} values"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def tagged(self, suffix: str, node: yaml.Node) -> Tagged:
        place = node.start_mark.line + 1, node.start_mark.column + 1
        # The tags of a docstring end in a colon, and some name the framework.
        name = suffix.rstrip(":").removeprefix("pytorch.")
        if isinstance(node, yaml.ScalarNode) and not node.value.strip():
            return Tagged(name, {}, {"": place})
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem=f"!{name} wants 'name: value' lines", problem_mark=node.start_mark)
        fields = self.construct_mapping(node, deep=True)
        places = {str(k.value): (v.start_mark.line + 1, v.start_mark.column + 1) for k, v in node.value}
        return Tagged(name, {str(key): value for key, value in fields.items()}, {**places, "": place})


_Loader.add_multi_constructor("!", _Loader.tagged)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def read_recipe(source: str, args: Any = None, *, strict: bool = False, anchors: bool = False) -> Document:
    """Read ``source``: a path ending in .md, .yaml or .yml, or (if it has a line break) the text of a recipe.

    ``args``: values for variables of the recipe, a mapping, JSON text, or ``name=value,name=value``. ``anchors``: they
    also reach what the modifiers say by ``*name``, which SparseML left as it was. ``strict``: what is otherwise a
    remark is an error. Raises RecipeError.
    """
    name, text, first_line = load_text(source)
    root, loader = _compose(name, text)
    arguments = parse_args(name, args)
    document = Document(name)
    if isinstance(root, yaml.ScalarNode | yaml.MappingNode) and root.tag.startswith("!"):
        document.modifiers = [loader.construct_object(root, deep=True)]
        if arguments:
            raise RecipeError(name, None, f"it has no variables, and recipe.args names {', '.join(arguments)}")
        return _moved(document, first_line)
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(name, None, "want 'name: value' lines at the top, modifiers in lists such as 'modifiers:'")
    top = _construct(name, loader, root, arguments if anchors else {}, first_line)
    groups, stages, variables = _split(name, top, first_line)
    _override(document, arguments, variables, stages, groups)
    if groups and stages:
        document.remarks.append(
            f"{name} has modifiers at the top as well as stages ({', '.join(stages)}): the stages are not run, as in "
            "SparseML. Put the modifiers into a stage of their own."
        )
    parts = [(groups, variables)] if groups else [(group, {**own}) for group, own in stages.values()]
    document.variables = _Scope(name, variables, {}).all()
    for modifiers, own in parts:
        scope = _Scope(name, own if not groups else {}, variables)
        document.modifiers += [_resolve(scope, tagged) for tagged in modifiers]
    if not document.modifiers:
        raise RecipeError(name, None, "no modifiers: want a list such as 'modifiers:' of '- !NameModifier' entries")
    if strict and document.remarks:
        raise RecipeError(name, None, " ".join(document.remarks))
    return document


def load_text(source: str) -> tuple[str, str, int]:
    """A name for messages, the YAML in ``source``, and the line of the file on which it begins (from 0)."""
    if "\n" in source or "\r" in source:
        return "recipe", *_front_matter("recipe", source, required=False)
    path = Path(source)
    if path.suffix not in (".md", ".yaml", ".yml"):
        raise UserError(f"recipe.path={source}: want a file ending in .md, .yaml or .yml, or a zoo: stub.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"recipe.path={source}: {error.strerror}.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(source, (line, 1), f"not UTF-8 (byte {error.start})") from error
    return source, *(_front_matter(source, text, required=True) if path.suffix == ".md" else (text, 0))


def _front_matter(name: str, text: str, required: bool) -> tuple[str, int]:
    """What stands between the first two lines that begin with --- or +++ (not in the middle of a line)."""
    fences = list(_FENCE.finditer(text))
    if len(fences) < 2:
        if required:
            what = f"front matter begins on line {text.count(chr(10), 0, fences[0].start()) + 1} and never ends" if fences else "no front matter"
            raise RecipeError(name, None, f"{what}: want the recipe between two lines '---'")
        return text, 0
    begin, stop = fences[0].end(), fences[1].start()
    return text[begin:stop], text.count("\n", 0, begin)


def _compose(name: str, text: str) -> tuple[yaml.Node | None, _Loader]:
    """The tree of nodes, and the loader that makes values of them."""
    if len(text.encode()) > MAX_BYTES:
        raise RecipeError(name, None, f"{len(text.encode())} bytes; a recipe may have {MAX_BYTES}")
    depth = 0
    for found in re.finditer(r"[\[{\]}]", text):  # the scanner takes quadratic time over open brackets
        depth += 1 if found[0] in "[{" else -1 if depth else 0
        if depth > MAX_DEPTH:
            place = text.count("\n", 0, found.start()) + 1, 1
            raise RecipeError(name, place, f"brackets nested deeper than {MAX_DEPTH}")
    try:
        loader = _Loader(text)
        return loader.get_single_node(), loader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _explained(name, error, 0) from error


def _explained(name: str, error: Exception, first_line: int) -> RecipeError:
    """An error of PyYAML in one line, with its place in the file."""
    mark = getattr(error, "problem_mark", None)
    place = (mark.line + 1 + first_line, mark.column + 1) if mark else None
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    return RecipeError(name, place, str(problem))
