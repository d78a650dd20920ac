"""SparseML recipes as text: YAML or Markdown front matter, ``!Tags``, variables, ``eval(...)``, stages, arguments.

What comes out is a flat list of tags with plain values and the place where each stands. A recipe is untrusted: it is
read by a safe YAML loader of our own within fixed bounds of size, depth and number of values.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.recipe.expressions import ExpressionError, evaluate, names_in

MAX_BYTES, MAX_DEPTH, MAX_VALUES, MAX_DIGITS, MAX_MESSAGE = 128 * 1024, 40, 10_000, 100, 1000

_FENCE = re.compile(r"^[ \t]*(---|\+\+\+)", re.MULTILINE)
_EVAL = re.compile(r"eval\((.*)\)", re.DOTALL)
Place = tuple[int, int]


class RecipeError(UserError):
    """What is wrong with a recipe, with its file, line and column where there is one."""

    def __init__(self, name: str, place: Place | None, message: str):
        if len(message) > MAX_MESSAGE:
            message = f"{message[:MAX_MESSAGE]} ..."
        super().__init__(f"{f'{name}:{place[0]}:{place[1]}' if place else name}: {message}")


@dataclass(frozen=True)
class Tagged:
    """``!name`` with the mapping under it; ``places``: line and column of each value, ``""`` for the tag itself.

    ``variables``: those of the recipe that a value is said by, in ``eval(...)`` or as ``*name``. ``stage``: the one in
    which it stands.
    """

    name: str
    fields: dict[str, Any]
    places: dict[str, Place]
    variables: dict[str, list[str]] = field(default_factory=dict, compare=False)
    stage: str = ""


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
    document = Document(name)
    try:
        loader = _loader(name, text, first_line)
        top, *stages = _sections(document, loader, loader.get_single_node(), arguments, anchors)
        scope = _Scope(name, top)
        document.variables = scope.variables()
        document.modifiers = scope.modifiers()
        for stage in stages:
            inner = _Scope(name, stage, scope)
            inner.variables()  # a wrong one is told even if nothing asks for it
            document.modifiers += inner.modifiers()
    except RecursionError as error:
        raise RecipeError(name, None, "lists, names or expressions nested too deep") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise _explained(name, error, first_line) from error
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
        raise RecipeError(source, _place(before, len(before)), f"not UTF-8 (byte {error.start})") from error
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
    place = _place(text, fences[0].start(1)) if fences else None
    raise RecipeError(name, place, f"{what}: want the recipe between two lines '---'")


def _place(text: str, index: int, first_line: int = 0) -> Place:
    """The line and column of a character."""
    return text.count("\n", 0, index) + 1 + first_line, index - text.rfind("\n", 0, index)


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
        raise UserError(
            f"recipe.args={text[:80]}: want '{{num_epochs: 5, init_lr: 1e-4}}' or 'num_epochs=5,init_lr=1e-4'."
        )
    return found


def _pair(word: str) -> tuple[str, Any]:
    found = re.fullmatch(r"(\w+)\s*[=:](.*)", word.strip(), re.DOTALL)
    if not found:
        raise UserError(f"recipe.args: cannot read {word.strip()[:80]!r}: want name=value,name=value, or JSON.")
    value = found[2].strip()
    number = as_number(value)
    return found[1], value if number is None else number


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

    def __init__(self, text: str):
        super().__init__(text)
        self.homes: dict[int, str] = {}  # the name under which each value is written; an alias may have another

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        mark, alias = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH}", problem_mark=mark)
        self.spend(1, mark)
        node = super().compose_node(parent, index)
        if isinstance(index, yaml.ScalarNode) and not alias:
            self.homes[id(node)] = index.value
        self.depth -= 1
        return node

    def spend(self, values: int, mark: Any) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES} values", problem_mark=mark)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, value in node.value:  # PyYAML would let <<: [*a, *a] of <<: [*b, *b] of ... grow without end
            if key.tag == "tag:yaml.org,2002:merge":
                for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(each, yaml.MappingNode):
                        self.flatten_mapping(each)
                        self.spend(len(each.value), key.start_mark)
        super().flatten_mapping(node)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        if kind in ("int", "float") and len(node.value) > MAX_DIGITS:  # they take quadratic time
            raise yaml.MarkedYAMLError(problem=f"a number of {len(node.value)} digits", problem_mark=node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # of !!int '', 2001-13-45, !!bool x, !!timestamp x and their like
            raise yaml.MarkedYAMLError(problem=f"cannot be read as {kind}", problem_mark=node.start_mark) from error

    def tagged(self, suffix: str, node: yaml.Node) -> Tagged:
        # The tags of a docstring end in a colon, and some name the framework.
        name = suffix.rstrip(":").removeprefix("pytorch.")
        if isinstance(node, yaml.ScalarNode) and not node.value.strip():
            return Tagged(name, {}, {"": self.place(node)})
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem=f"!{name} wants 'name: value' lines", problem_mark=node.start_mark)
        items = self.items(node)
        fields = {key: self.construct_object(value, deep=True) for key, value in items.items()}
        places = {"": self.place(node)} | {key: self.place(value) for key, value in items.items()}
        before = [key for key, value in items.items() if value.start_mark.index < node.start_mark.index]  # by an alias
        said = {key: [self.homes.get(id(items[key]), "")] for key in before}
        return Tagged(name, fields, places, said)

    def items(self, node: yaml.MappingNode) -> dict[str, yaml.Node]:
        """The values of a mapping by key, merged (``<<``) and the last of equal keys."""
        self.flatten_mapping(node)
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=f"a {key.id} as a name", problem_mark=key.start_mark)
        return {key.value: value for key, value in node.value}

    def refuse(self, node: yaml.Node) -> None:
        raise yaml.MarkedYAMLError(problem=f"no recipe has a !!{node.tag[18:]}", problem_mark=node.start_mark)

    def place(self, node: yaml.Node) -> Place:
        return node.start_mark.line + 1 + self.first_line, node.start_mark.column + 1


_Loader.add_multi_constructor("!", _Loader.tagged)
for _kind in ("binary", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.refuse)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _loader(name: str, text: str, first_line: int) -> _Loader:
    if len(text) > MAX_BYTES:
        raise RecipeError(name, None, f"{len(text)} characters; a recipe may have {MAX_BYTES}")
    depth = 0
    for found in re.finditer(r"[\[{\]}]", text):  # the scanner takes quadratic time over open brackets
        depth += 1 if found[0] in "[{" else -1 if depth else 0
        if depth > MAX_DEPTH:
            place = _place(text, found.start(), first_line)
            raise RecipeError(name, place, f"brackets nested deeper than {MAX_DEPTH}")
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        place = _place(text, error.position, first_line)
        raise RecipeError(name, place, f"a character that YAML does not allow (number {error.character})") from error
    loader.first_line = first_line
    return loader


def _explained(name: str, error: Exception, first_line: int) -> RecipeError:
    """An error of PyYAML in one line, with its place in the file."""
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem_mark:
        return RecipeError(name, None, str(error).partition("\n")[0])
    mark, start = error.problem_mark, error.context_mark
    where = f" of line {start.line + 1 + first_line}" if start else ""
    context = f" ({error.context}{where})" if error.context else ""
    return RecipeError(name, (mark.line + 1 + first_line, mark.column + 1), f"{error.problem}{context}")


@dataclass
class _Section:
    """The recipe outside of stages, or one stage (``name``): modifiers, variables as they are written, and where."""

    modifiers: list[Tagged] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    name: str = ""


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
    if not _is_mapping(root):
        raise RecipeError(name, loader.place(root), "want 'name: value' lines at the top, modifiers in named lists")
    items = loader.items(root)
    stages = {key: loader.items(node) for key, node in items.items() if _is_mapping(node)}
    stages = {key: own for key, own in stages.items() if any("modifiers" in each for each in own)}
    homes = [{key: node for key, node in items.items() if key not in stages}, *stages.values()]
    for key, value in arguments.items():
        if not any(key in home and "modifiers" not in key for home in homes):
            known = [each for home in homes for each in home if "modifiers" not in each and not each.startswith("__")]
            raise RecipeError(
                name, None, f"recipe.args names {key[:80]}, and the recipe has no such variable.{_nearest(key, known)}"
            )
        for home in homes if anchors else ():
            if key in home and loader.homes.get(id(home[key])) == key:
                loader.constructed_objects[home[key]] = value
    sections = [_section(name, loader, home, arguments) for home in homes]
    for section, stage in zip(sections[1:], stages, strict=True):
        section.name = stage
    if arguments:
        document.remarks += _unreached(name, loader, root, homes, sections, arguments, anchors)
    if stages and sections[0].modifiers:
        document.remarks.append(
            f"{name} has modifiers at the top as well as stages ({', '.join(stages)}): the stages are not run, as in "
            "SparseML. Put the modifiers at the top into a stage of their own."
        )
        return sections[:1]
    return sections


def _is_mapping(node: yaml.Node) -> TypeGuard[yaml.MappingNode]:
    """Whether this is a mapping without a tag of its own."""
    return isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map"


def _section(name: str, loader: _Loader, items: dict[str, yaml.Node], arguments: dict[str, Any]) -> _Section:
    found = _Section()
    for key, node in items.items():
        value = loader.construct_object(node, deep=True)
        listed = value if isinstance(value, list) else [value]
        if "modifiers" not in key:
            if any(isinstance(each, Tagged) for each in listed):
                message = f"modifiers under {key!r}: the name of their list must contain 'modifiers'"
                raise RecipeError(name, loader.place(node), message)
            if key not in ("__metadata__", "metadata", "version"):
                found.variables[key] = arguments.get(key, value)
                found.places[key] = loader.place(node)
        elif isinstance(value, dict):
            raise RecipeError(
                name,
                loader.place(node),
                f"{key} is a mapping: this is the later dialect of SparseML 1.6 and llm-compressor (stages with "
                "run_type, modifiers without a tag), which no BERT script read. Write a list of '- !NameModifier'.",
            )
        elif value is not None:
            nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
            for each, where in zip(listed, nodes, strict=True):
                if not isinstance(each, Tagged):
                    said = f"{reprlib.repr(each):.60}"
                    raise RecipeError(name, loader.place(where), f"{key} holds {said}; want '- !NameModifier'")
            found.modifiers += listed
    return found


def _unreached(
    name: str,
    loader: _Loader,
    root: yaml.Node,
    homes: list[dict[str, yaml.Node]],
    sections: list[_Section],
    arguments: dict[str, Any],
    anchors: bool,
) -> list[str]:
    """A remark for each argument that some or all modifiers do not see, because no eval(...) leads to its variable."""
    reached = _reached(sections)
    links = Counter(id(child) for node in _nodes(root) for child in _children(node))
    remarks = []
    for key in arguments:
        nodes = [id(home[key]) for home in homes if key in home]
        aliased = any(links[node] > 1 and loader.homes.get(node) == key for node in nodes)
        if (anchors and aliased) or (key in reached and not aliased):
            continue
        whom = "not every modifier: some" if key in reached else "no modifier: they"
        how = f"{whom} say it by an anchor (*name), which SparseML does not follow here" if aliased else "no modifier"
        way = f"eval({key}) in the recipe{', or add recipe.anchors=true' if aliased else ''}"
        remarks.append(f"{name}: recipe.args changes {key}, which reaches {how}. Write {way}.")
    return remarks


def _reached(sections: list[_Section]) -> set[str]:
    """The variables to which an eval(...) leads from a modifier."""
    said: dict[str, list[Any]] = defaultdict(list)
    for section in sections:
        for key, value in section.variables.items():
            said[key].append(value)
    found: set[str] = set()
    seen: set[int | str] = set()  # each list, mapping and text once: many aliases may say the same
    rest: list[Any] = [modifier.fields for section in sections for modifier in section.modifiers]
    while rest:
        each = rest.pop()
        mark = each if isinstance(each, str) else id(each)
        if mark in seen:
            continue
        seen.add(mark)
        if isinstance(each, dict | list):
            rest += each.values() if isinstance(each, dict) else each
        elif isinstance(each, str) and (match := _EVAL.fullmatch(each)):
            for key in names_in(match[1]) - found:
                found.add(key)
                rest += said[key]
    return found


def _nearest(name: str, known: Iterable[str]) -> str:
    """The right name for a wrong one, and what others there are; some of them, if they are many or long."""
    names = [each for each in known if len(each) <= 80][:80]
    return f"{did_you_mean(name[:80], names)} There are: {', '.join(names) or 'none'}."


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
    """Variables of the recipe, or of a stage inside of it, resolved when they are asked for."""

    def __init__(self, name: str, section: _Section, outer: _Scope | None = None):
        self.name, self.section, self.outer = name, section, outer
        self.top: _Scope = outer.top if outer else self
        self.spent = 0  # by the whole recipe, if this is the top
        self.known: dict[str, tuple[Any, int]] = {}  # each with what it costs to say it once more
        self.path: list[str] = []  # the variables that are being resolved: a cycle is in it

    def variables(self) -> dict[str, Any]:
        """Every variable of the section."""
        return {key: self.variable(key) for key in self.section.variables}

    def modifiers(self) -> list[Tagged]:
        """The modifiers of the section, with every expression in them resolved."""
        return [
            replace(
                each,
                fields={key: self.value(value, each.places[key]) for key, value in each.fields.items()},
                variables={key: self.said(value, each.variables.get(key, [])) for key, value in each.fields.items()},
                stage=self.section.name,
            )
            for each in self.section.modifiers
        ]

    def said(self, value: Any, homes: list[str]) -> list[str]:
        """The variables that a field is said by: those of its eval(...), or the one whose anchor it repeats."""
        match = _EVAL.fullmatch(value) if isinstance(value, str) else None
        known = {*self.section.variables, *(self.outer.section.variables if self.outer else ())}
        return sorted(known & {*homes, *(names_in(match[1]) if match else ())})

    def variable(self, key: str, place: Place | None = None) -> Any:
        """The value of a variable: of the stage, or else of the recipe, whose variables know nothing of the stage."""
        raw = self.section.variables
        if self.outer and (key not in raw or self.path[-1:] == [key]):  # num_epochs: eval(num_epochs) in a stage
            return self.outer.variable(key, place)
        if key in self.known:
            value, cost = self.known[key]
            self.spend(cost, place)
            return value
        if key not in raw:
            raise RecipeError(self.name, place, f"eval: no variable {key[:80]}.{_nearest(key, raw)}")
        if key in self.path:
            way = " -> ".join([*self.path[self.path.index(key) :], key])
            raise RecipeError(self.name, place, f"variables that need each other: {way}")
        if len(self.path) >= MAX_DEPTH:
            raise RecipeError(self.name, place, f"variables that need more than {MAX_DEPTH} others in a row")
        before = self.top.spent
        self.path.append(key)
        value = self.value(raw[key], self.section.places.get(key, place))
        self.path.pop()
        self.known[key] = value, self.top.spent - before
        return value

    def spend(self, values: int, place: Place | None) -> None:
        """Count what comes out: aliases and eval(...) let a short recipe say very much."""
        self.top.spent += values
        if self.top.spent > MAX_VALUES:
            raise RecipeError(self.name, place, f"more than {MAX_VALUES} values")

    def value(self, value: Any, place: Place | None) -> Any:
        """``value`` with each eval(...) in it replaced by what it comes to; keys of mappings stay."""
        self.spend(1, place)
        if isinstance(value, dict):
            return {key: self.value(each, place) for key, each in value.items()}
        if isinstance(value, list):
            return [self.value(each, place) for each in value]
        if isinstance(value, Tagged):
            raise RecipeError(self.name, place, f"!{value.name} in a value; modifiers stand in a list of their own")
        found = _EVAL.fullmatch(value) if isinstance(value, str) else None
        if not found:
            return value
        if re.fullmatch(r"\w+", found[1]) and not found[1][0].isdigit():
            return self.variable(found[1], place)  # lists and texts too
        self.spend(len(found[1]) // 10, place)
        try:
            return evaluate(found[1], lambda key: self.number(key, place))
        except ExpressionError as error:
            raise RecipeError(self.name, place, f"{value[:80]}: {error}") from error

    def number(self, key: str, place: Place | None) -> int | float:
        """The value of a variable that is calculated with."""
        value = self.variable(key, place)
        number = as_number(value)
        if number is None:
            raise RecipeError(self.name, place, f"eval: {key} is {reprlib.repr(value):.40}, no number")
        return number
