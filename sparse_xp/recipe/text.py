"""SparseML recipes as text: YAML or Markdown front matter, ``!Tags``, variables, ``eval(...)``, stages, arguments.

What comes out is a flat list of tags with plain values and the place where each stands. A recipe is untrusted: it is
read by a safe YAML loader of our own within fixed bounds of size, depth and number of values.
"""

from __future__ import annotations

import json
import re
from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
        super().__init__(f"{f'{name}:{place[0]}:{place[1]}' if place else name}: {message}")


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


def read_recipe(source: str, args: Any = None, *, strict: bool = False, anchors: bool = False) -> Document:
    """Read ``source``: a path ending in .md, .yaml or .yml, or (if it has a line break) the text of a recipe.

    ``args``: values for variables of the recipe, a mapping, JSON text, or ``name=value,name=value``. ``anchors``: they
    also reach what the modifiers say by ``*name``, which SparseML left as it was. ``strict``: what is otherwise a
    remark is an error. Raises RecipeError, or UserError if there is no such file.
    """
    arguments = parse_args(args)
    name, text, first_line = load_text(source)
    document, loader = Document(name), _loader(name, text, first_line)
    try:
        root = loader.get_single_node()
        sections = _sections(document, loader, root, arguments, anchors)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise _explained(name, error, first_line) from error
    top, *stages = sections
    scope = _Scope(name, top.variables, {})
    document.variables = {key: scope.variable(key) for key in top.variables}
    for section in stages or [top]:
        scope = _Scope(name, section.variables if stages else {}, top.variables)
        document.modifiers += [scope.tagged(modifier) for modifier in section.modifiers]
    if not document.modifiers:
        raise RecipeError(name, None, "no modifiers: want a list such as 'modifiers:' of '- !NameModifier' entries")
    if strict and document.remarks:
        raise UserError(" ".join(document.remarks))
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
    """What stands between the first two lines that begin with --- or +++, and the line on which it begins."""
    fences = list(_FENCE.finditer(text))
    if len(fences) >= 2:
        begin, stop = fences[0].end(), fences[1].start()
        return text[begin:stop], text.count("\n", 0, begin)
    if not required:
        return text, 0
    what = "front matter that never ends" if fences else "no front matter"
    raise RecipeError(name, None, f"{what}: want the recipe between two lines '---'")


def parse_args(args: Any) -> dict[str, Any]:
    """``recipe.args`` as a mapping: of a mapping, of JSON text, or of ``name=value,name=value``."""
    if args is None or isinstance(args, Mapping):
        return {str(key): value for key, value in (args or {}).items()}
    text = str(args).strip()
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        found = dict(map(_pair, text.split(",")))
    if not isinstance(found, dict):
        raise UserError(f"recipe.args={text}: want '{{num_epochs: 5, init_lr: 1e-4}}' or 'num_epochs=5,init_lr=1e-4'.")
    return found


def _pair(word: str) -> tuple[str, Any]:
    found = re.fullmatch(r"\s*(\w+)\s*[=:]\s*(.*?)\s*", word)
    if not found:
        raise UserError(f"recipe.args: cannot read {word.strip()!r}: want name=value,name=value, or JSON.")
    number = as_number(found[2])
    return found[1], found[2] if number is None else number


def as_number(value: Any) -> int | float | None:
    """A number, or text that is one; None for anything else. True and False are 1 and 0, as in SparseML."""
    if isinstance(value, bool | int | float):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML has it (the last of equal keys wins), tags as ``Tagged``, 5e-5 as a number, within bounds."""

    depth = values = first_line = 0

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
        # The tags of a docstring end in a colon, and some name the framework.
        name = suffix.rstrip(":").removeprefix("pytorch.")
        if isinstance(node, yaml.ScalarNode) and not node.value.strip():
            return Tagged(name, {}, {"": self.place(node)})
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem=f"!{name} wants 'name: value' lines", problem_mark=node.start_mark)
        items = self.items(node)
        fields = {key: self.construct_object(value, deep=True) for key, value in items.items()}
        return Tagged(name, fields, {"": self.place(node)} | {key: self.place(value) for key, value in items.items()})

    def items(self, node: yaml.MappingNode) -> dict[str, yaml.Node]:
        """The values of a mapping by key, merged (``<<``) and the last of equal keys."""
        self.flatten_mapping(node)
        return {str(key.value): value for key, value in node.value}

    def place(self, node: yaml.Node) -> Place:
        return node.start_mark.line + 1 + self.first_line, node.start_mark.column + 1


_Loader.add_multi_constructor("!", _Loader.tagged)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _loader(name: str, text: str, first_line: int) -> _Loader:
    if len(text.encode()) > MAX_BYTES:
        raise RecipeError(name, None, f"{len(text.encode())} bytes; a recipe may have {MAX_BYTES}")
    depth = 0
    for found in re.finditer(r"[\[{\]}]", text):  # the scanner takes quadratic time over open brackets
        depth += 1 if found[0] in "[{" else -1 if depth else 0
        if depth > MAX_DEPTH:
            place = text.count("\n", 0, found.start()) + 1 + first_line, 1
            raise RecipeError(name, place, f"brackets nested deeper than {MAX_DEPTH}")
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        raise _explained(name, error, first_line) from error
    loader.first_line = first_line
    return loader


def _explained(name: str, error: Exception, first_line: int) -> Exception:
    """An error of PyYAML in one line, with its place in the file."""
    if isinstance(error, UserError):
        return error
    mark = getattr(error, "problem_mark", None)
    place = (mark.line + 1 + first_line, mark.column + 1) if mark else None
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).partition("\n")[0]
    return RecipeError(name, place, str(problem))


@dataclass
class _Section:
    """The recipe outside of stages, or one stage: its modifiers, and its variables as they are written."""

    modifiers: list[Tagged] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)


def _sections(
    document: Document, loader: _Loader, root: yaml.Node | None, arguments: dict[str, Any], anchors: bool
) -> list[_Section]:
    """What stands outside of stages, then the stages that are run."""
    name = document.name
    if root is None:
        raise RecipeError(name, None, "empty")
    if root.tag.startswith("!"):  # one bare modifier
        if arguments:
            raise RecipeError(name, None, f"it has no variables, and recipe.args names {', '.join(arguments)}")
        return [_Section([loader.construct_object(root, deep=True)])]
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(name, loader.place(root), "want 'name: value' lines at the top, modifiers in named lists")
    items = loader.items(root)
    stages = {key: loader.items(node) for key, node in items.items() if isinstance(node, yaml.MappingNode)}
    stages = {key: own for key, own in stages.items() if any("modifiers" in each for each in own)}
    homes = [{key: node for key, node in items.items() if key not in stages}, *stages.values()]
    for key, value in arguments.items():
        if not any(key in home and "modifiers" not in key for home in homes):
            known = [each for home in homes for each in home if "modifiers" not in each and not each.startswith("__")]
            raise RecipeError(
                name,
                None,
                f"recipe.args names {key}, and the recipe has no such variable.{did_you_mean(key, known)} "
                f"It has {', '.join(known) or 'none'}.",
            )
        if anchors:
            for home in homes:
                if isinstance(node := home.get(key), yaml.ScalarNode) and as_number(value) is not None:
                    node.value, node.tag = repr(value), loader.resolve(yaml.ScalarNode, repr(value), (True, False))
    sections = [_section(name, loader, home, arguments) for home in homes]
    told = ("__metadata__", "metadata", "version")
    sections[0].variables = {key: value for key, value in sections[0].variables.items() if key not in told}
    if arguments:
        document.remarks += _unreached(name, root, homes, sections, arguments, anchors)
    if stages and sections[0].modifiers:
        document.remarks.append(
            f"{name} has modifiers at the top as well as stages ({', '.join(stages)}): the stages are not run, as in "
            "SparseML. Put the modifiers at the top into a stage of their own."
        )
        return sections[:1]
    return sections


def _section(name: str, loader: _Loader, items: dict[str, yaml.Node], arguments: dict[str, Any]) -> _Section:
    found = _Section()
    for key, node in items.items():
        value = loader.construct_object(node, deep=True)
        listed = value if isinstance(value, list) else [value]
        tagged = any(isinstance(each, Tagged) for each in listed)
        if "modifiers" in key and isinstance(value, dict):
            raise RecipeError(
                name,
                loader.place(node),
                f"{key} is a mapping: this is the later dialect of SparseML 1.6 and llm-compressor (stages with "
                "run_type, modifiers without a tag), which no BERT script read. Write a list of '- !NameModifier'.",
            )
        if "modifiers" in key and value is not None:
            for each, where in zip(listed, getattr(node, "value", [node]), strict=False):
                if not isinstance(each, Tagged):
                    raise RecipeError(name, loader.place(where), f"{key} holds {each!r:.60}; want '- !NameModifier'")
            found.modifiers += listed
        elif tagged:
            raise RecipeError(
                name, loader.place(node), f"modifiers under {key!r}: the name of their list must contain 'modifiers'"
            )
        elif value is not None or "modifiers" not in key:
            found.variables[key] = arguments.get(key, value)
    return found


def _unreached(
    name: str,
    root: yaml.Node,
    homes: list[dict[str, yaml.Node]],
    sections: list[_Section],
    arguments: dict[str, Any],
    anchors: bool,
) -> list[str]:
    """A remark for each argument that changes nothing, because no eval(...) leads from a modifier to its variable."""
    reached = {key for section in sections for each in section.modifiers for key in _mentioned(each.fields)}
    variables = ChainMap(*(section.variables for section in sections))
    found: set[str] = set()
    while reached - found:
        found |= reached
        reached |= {each for key in reached if key in variables for each in _mentioned(variables[key])}
    links = Counter(id(child) for node in _nodes(root) for child in _children(node))
    remarks = []
    for key in arguments:
        aliased = any(key in home and links[id(home[key])] > 1 for home in homes)
        if key in reached or (anchors and aliased):
            continue
        how = "they say it by an anchor (*name), which SparseML does not follow here. " if aliased else ""
        way = f"eval({key}) in the recipe{', or add recipe.anchors=true' if aliased else ''}"
        remarks.append(f"{name}: recipe.args changes {key}, which reaches no modifier: {how}Write {way}.")
    return remarks


def _mentioned(value: Any) -> set[str]:
    """The variables in the eval(...) of a value as it is written, bounded like everything else."""
    found: set[str] = set()
    rest, seen = [value], 0
    while rest and (seen := seen + 1) < MAX_VALUES:
        each = rest.pop()
        if isinstance(each, dict | list):
            rest += each.values() if isinstance(each, dict) else each
        elif isinstance(each, str) and (match := _EVAL.fullmatch(each)):
            found |= names_in(match[1])
    return found


def _nodes(root: yaml.Node) -> Iterable[yaml.Node]:
    """Every node once."""
    seen, rest = {id(root)}, [root]
    while rest:
        node = rest.pop()
        yield node
        for child in _children(node):
            if id(child) not in seen:
                seen.add(id(child))
                rest.append(child)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


class _Scope:
    """Variables of a stage over those of the recipe, resolved when they are asked for."""

    def __init__(self, name: str, own: Mapping[str, Any], outer: Mapping[str, Any]):
        self.name, self.raw, self.count = name, ChainMap(dict(own), dict(outer)), 0
        self.known: dict[str, Any] = {}
        self.path: list[str] = []  # the variables that are being resolved: a cycle is in it

    def tagged(self, modifier: Tagged) -> Tagged:
        """The modifier with every expression in it resolved."""
        fields = {key: self.value(value, modifier.places.get(key)) for key, value in modifier.fields.items()}
        return replace(modifier, fields=fields)

    def variable(self, key: str, place: Place | None = None) -> Any:
        """The value of a variable."""
        if key not in self.known:
            if key not in self.raw:
                raise RecipeError(
                    self.name, place, f"eval: no variable {key}.{did_you_mean(key, self.raw)} There are: "
                    f"{', '.join(self.raw) or 'none'}."
                )  # fmt: skip
            if key in self.path or len(self.path) > MAX_DEPTH:
                way = " -> ".join([*self.path[self.path.index(key) if key in self.path else -5 :], key])
                raise RecipeError(self.name, place, f"variables that need each other: {way}")
            self.path.append(key)
            self.known[key] = self.value(self.raw[key], place)
            self.path.pop()
        return self.known[key]

    def value(self, value: Any, place: Place | None) -> Any:
        """``value`` with each eval(...) in it replaced by what it comes to; keys of mappings stay."""
        self.count += 1
        if self.count > MAX_VALUES:
            raise RecipeError(self.name, place, f"more than {MAX_VALUES} values")
        if isinstance(value, dict):
            return {key: self.value(each, place) for key, each in value.items()}
        if isinstance(value, list):
            return [self.value(each, place) for each in value]
        found = _EVAL.fullmatch(value) if isinstance(value, str) else None
        if not found:
            return value
        if re.fullmatch(r"\w+", found[1]) and not found[1][0].isdigit():
            return self.variable(found[1], place)  # lists and texts too
        try:
            return evaluate(found[1], lambda key: self.number(key, place))
        except ExpressionError as error:
            raise RecipeError(self.name, place, f"{value[:80]}: {error}") from error

    def number(self, key: str, place: Place | None) -> int | float:
        """The value of a variable that is calculated with."""
        value = self.variable(key, place)
        number = as_number(value)
        if number is None:
            raise RecipeError(self.name, place, f"eval: {key} is {value!r:.40}, no number")
        return number
