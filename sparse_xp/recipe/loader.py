"""The YAML of a recipe, read by a safe loader that knows ``!Tags`` and the line and column of each value.

A recipe is untrusted text: its size, depth, numbers and the count of its values are bounded before they cost anything.
``read_mapping`` reads the user's other YAML files within bounds of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sparse_xp.errors import UserError
from sparse_xp.files.reading import explain_read_errors

#: bounds of a recipe: bytes of the text, nesting, values with aliases written out, digits of a number; and of a message
MAX_BYTES, MAX_DEPTH, MAX_VALUES, MAX_DIGITS, MAX_MESSAGE = 128 * 1024, 40, 10_000, 100, 1000

#: line and column in the file, from 1
Position = tuple[int, int]


class RecipeError(UserError):
    """An error in a recipe, with the file, and with line and column where they are known."""

    def __init__(self, name: str, position: Position | None, message: str):
        if len(message) > MAX_MESSAGE:
            message = f"{message[:MAX_MESSAGE]} ..."
        super().__init__(f"{f'{name}:{position[0]}:{position[1]}' if position else name}: {message}")


@dataclass(frozen=True)
class TaggedMapping:
    """``!name`` with the mapping under it: one modifier as it is written in a recipe.

    ``positions``: line and column of each value, ``""`` for the tag itself; empty for one that is to be written.
    ``variables``: the variables of the recipe that a value uses, in ``eval(...)`` or as ``*name``. ``stage``: the name
    of its stage, ``""`` outside of stages.
    """

    name: str
    fields: dict[str, object]
    positions: dict[str, Position] = field(default_factory=dict)
    variables: dict[str, list[str]] = field(default_factory=dict, compare=False)
    stage: str = ""


def position_in(text: str, index: int, first_line: int = 0) -> Position:
    """Return line and column of the character number ``index``."""
    return text.count("\n", 0, index) + 1 + first_line, index - text.rfind("\n", 0, index)


class Loader(yaml.SafeLoader):
    """PyYAML's YAML 1.1 (the last of equal keys wins), with tags as ``TaggedMapping``, 5e-5 as a number, 2:4 as text.

    Every node, and every merge (``<<``), counts against ``MAX_VALUES``. Names of methods that PyYAML calls are its own.
    """

    depth = values = first_line = 0

    def __init__(self, text: str):
        super().__init__(text)
        # By the id of a node the key at which it is written in full. An alias (*name) repeats the node at other keys.
        self.anchor_names: dict[int, str] = {}

    # PyYAML's index is a key (a node), a number or None; its type stubs know only the number.
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node within the bounds, and remember the key at which it is written."""
        self.depth += 1
        events: Any = self  # PyYAML's methods for events have no annotations
        mark, alias = events.peek_event().start_mark, events.check_event(yaml.AliasEvent)
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH}", problem_mark=mark)
        self.spend(1, mark)
        node = super().compose_node(parent, index)
        if isinstance(index, yaml.ScalarNode) and not alias:
            self.anchor_names[id(node)] = index.value
        self.depth -= 1
        return node

    def spend(self, values: int, mark: yaml.Mark | None) -> None:
        """Count ``values`` more. Raises MarkedYAMLError if they are too many."""
        self.values += values
        if self.values > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES} values", problem_mark=mark)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Resolve merges (``<<``), counting what they copy: PyYAML lets ``<<: [*a, *a]`` grow exponentially."""
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(merged, yaml.MappingNode):
                        self.flatten_mapping(merged)
                        self.spend(len(merged.value), key.start_mark)
        super().flatten_mapping(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        """Return the value of a node. Raises MarkedYAMLError for one that cannot be read."""
        kind = node.tag.rpartition(":")[2]
        if kind in ("int", "float") and len(node.value) > MAX_DIGITS:  # parsing them takes quadratic time
            raise yaml.MarkedYAMLError(problem=f"a number of {len(node.value)} digits", problem_mark=node.start_mark)
        if kind in ("int", "float") and ":" in node.value:
            return node.value  # 2:4 is a mask type; YAML 1.1 reads it as 124, a number to the base of 60
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # PyYAML's own errors for !!int '', 2001-13-45, !!bool x, !!timestamp x and the like
            raise yaml.MarkedYAMLError(problem=f"cannot be read as {kind}", problem_mark=node.start_mark) from error

    def tagged(self, suffix: str, node: yaml.Node) -> TaggedMapping:
        """Return what stands under ``!suffix``. Raises MarkedYAMLError for a list or a text."""
        # The tags of a docstring end in a colon, and some name the framework.
        name = suffix.rstrip(":").removeprefix("pytorch.")
        if isinstance(node, yaml.ScalarNode) and not node.value.strip():
            return TaggedMapping(name, {}, {"": self.position(node)})
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem=f"!{name} needs 'name: value' lines", problem_mark=node.start_mark)
        items = self.items(node)
        fields = {key: self.construct_object(value, deep=True) for key, value in items.items()}
        positions = {"": self.position(node)} | {key: self.position(value) for key, value in items.items()}
        # A value whose position is before the tag was referenced through an alias: the field uses the variable there.
        aliased = [key for key, value in items.items() if value.start_mark.index < node.start_mark.index]
        variables = {key: [self.anchor_names.get(id(items[key]), "")] for key in aliased}
        return TaggedMapping(name, fields, positions, variables)

    def items(self, node: yaml.MappingNode) -> dict[str, yaml.Node]:
        """Return the value nodes of a mapping by key, with merges (``<<``) resolved; the last of equal keys wins."""
        self.flatten_mapping(node)
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=f"a {key.id} as a name", problem_mark=key.start_mark)
        return {key.value: value for key, value in node.value}

    def refuse(self, node: yaml.Node) -> None:
        """Raise MarkedYAMLError: YAML's sets, pairs and bytes have no meaning in a recipe."""
        raise yaml.MarkedYAMLError(problem=f"no recipe has a !!{node.tag[18:]}", problem_mark=node.start_mark)

    def position(self, node: yaml.Node) -> Position:
        """Return line and column of a node in the file."""
        return node.start_mark.line + 1 + self.first_line, node.start_mark.column + 1


Loader.add_multi_constructor("!", Loader.tagged)
for _kind in ("binary", "omap", "pairs", "set"):
    Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", Loader.refuse)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def open_loader(name: str, text: str, first_line: int) -> Loader:
    """Return a loader of ``text``, which begins on ``first_line`` (from 0) of the file. Raises RecipeError."""
    if len(text) > MAX_BYTES:
        raise RecipeError(name, None, f"{len(text)} characters; a recipe may have {MAX_BYTES}")
    too_deep = first_bracket_deeper_than(MAX_DEPTH, text)
    if too_deep is not None:
        raise RecipeError(name, position_in(text, too_deep, first_line), f"brackets nested deeper than {MAX_DEPTH}")
    try:
        loader = Loader(text)
    except yaml.reader.ReaderError as error:
        position = position_in(text, error.position, first_line)
        raise RecipeError(name, position, f"a character that YAML does not allow (number {error.character})") from error
    loader.first_line = first_line
    return loader


def first_bracket_deeper_than(limit: int, text: str) -> int | None:
    """Return the index of the first bracket inside of more than ``limit`` others, or None.

    PyYAML's scanner takes quadratic time over open brackets, so they are counted before it runs. Brackets in texts and
    comments count too.
    """
    depth = 0
    for bracket in re.finditer(r"[\[{\]}]", text):
        depth += 1 if bracket[0] in "[{" else -1 if depth else 0
        if depth > limit:
            return bracket.start()
    return None


def as_recipe_error(name: str, error: Exception, first_line: int) -> RecipeError:
    """Return an error of PyYAML in one line, with its position in the file."""
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem_mark:
        return RecipeError(name, None, str(error).partition("\n")[0])
    mark, start = error.problem_mark, error.context_mark
    where = f" of line {start.line + 1 + first_line}" if start else ""
    context = f" ({error.context}{where})" if error.context else ""
    return RecipeError(name, (mark.line + 1 + first_line, mark.column + 1), f"{error.problem}{context}")


#: bounds of the user's other YAML files (sweeps, groups of conf/, tables of stubs)
MAX_FILE_BYTES, MAX_FILE_VALUES = 1 << 20, 100_000


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file of the user; empty if the file is empty.

    Raises UserError with the file's name for anything else, and for a file whose aliases, written out, are too many
    values: code that copies them (OmegaConf) would never return.
    """
    with explain_read_errors(path, "Correct the file, or name another."):
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES:,} bytes")
        text = data.decode("utf-8-sig")
        if not text.strip():
            return {}
        try:
            if first_bracket_deeper_than(10 * MAX_DEPTH, text) is not None:
                raise RecursionError
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            if root is None:
                return {}
            check_size(root)
            content = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
            raise UserError(f"{path} is not YAML{where}: {error.problem}.") from error
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}, expected 'name: value' lines")
        return content


def check_size(root: yaml.Node) -> int:
    """Return how many values there are with each alias written out. Raises ValueError if they are too many."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:  # 0 while the node is being counted
            if not sizes[id(node)]:
                raise ValueError("it contains itself")
            return sizes[id(node)]
        sizes[id(node)] = 0
        children = node.value if isinstance(node.value, list) else []
        flat = (node for child in children for node in (child if isinstance(child, tuple) else (child,)))
        total = 1 + sum(map(size, flat))
        if total > MAX_FILE_VALUES:
            raise ValueError(f"it has more than {MAX_FILE_VALUES:,} values")
        sizes[id(node)] = total
        return total

    return size(root)
