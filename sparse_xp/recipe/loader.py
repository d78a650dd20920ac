"""The YAML of a recipe, read by a safe loader of our own: ``!Tags``, and the place where each value stands.

A recipe is untrusted text: its size, depth, numbers and the count of its values are bounded before they cost anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sparse_xp.errors import UserError
from sparse_xp.files import reading

MAX_BYTES, MAX_DEPTH, MAX_VALUES, MAX_DIGITS, MAX_MESSAGE = 128 * 1024, 40, 10_000, 100, 1000

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


def place_in(text: str, index: int, first_line: int = 0) -> Place:
    """The line and column of a character."""
    return text.count("\n", 0, index) + 1 + first_line, index - text.rfind("\n", 0, index)


class Loader(yaml.SafeLoader):
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


Loader.add_multi_constructor("!", Loader.tagged)
for _kind in ("binary", "omap", "pairs", "set"):
    Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", Loader.refuse)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def open_loader(name: str, text: str, first_line: int) -> Loader:
    """A loader of ``text``, which begins on ``first_line`` (from 0) of the file. Raises RecipeError."""
    if len(text) > MAX_BYTES:
        raise RecipeError(name, None, f"{len(text)} characters; a recipe may have {MAX_BYTES}")
    depth = 0
    for found in re.finditer(r"[\[{\]}]", text):  # the scanner takes quadratic time over open brackets
        depth += 1 if found[0] in "[{" else -1 if depth else 0
        if depth > MAX_DEPTH:
            place = place_in(text, found.start(), first_line)
            raise RecipeError(name, place, f"brackets nested deeper than {MAX_DEPTH}")
    try:
        loader = Loader(text)
    except yaml.reader.ReaderError as error:
        place = place_in(text, error.position, first_line)
        raise RecipeError(name, place, f"a character that YAML does not allow (number {error.character})") from error
    loader.first_line = first_line
    return loader


def explained(name: str, error: Exception, first_line: int) -> RecipeError:
    """An error of PyYAML in one line, with its place in the file."""
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem_mark:
        return RecipeError(name, None, str(error).partition("\n")[0])
    mark, start = error.problem_mark, error.context_mark
    where = f" of line {start.line + 1 + first_line}" if start else ""
    context = f" ({error.context}{where})" if error.context else ""
    return RecipeError(name, (mark.line + 1 + first_line, mark.column + 1), f"{error.problem}{context}")


#: bounds of a file of the user's configuration
MAX_FILE_BYTES, MAX_FILE_VALUES = 1 << 20, 100_000


def read_mapping(path: Path) -> dict[str, Any]:
    """A file of the user's that is a mapping of YAML; empty if the file says nothing.

    Raises UserError, with the file's name, for anything else, and for one that grows without bound once its aliases
    are written out: who copies its values would never come to an end.
    """
    with reading(path, "Mend the file, or name another."):
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES:,} bytes")
        text = data.decode("utf-8-sig")
        if not text.strip():
            return {}
        try:
            depth = 0
            for found in re.finditer(r"[\[{\]}]", text):  # the scanner takes quadratic time over open brackets
                depth += 1 if found[0] in "[{" else -1 if depth else 0
                if depth > 10 * MAX_DEPTH:
                    raise RecursionError
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            if root is None:
                return {}
            written_out(root)
            told = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
            raise UserError(f"{path} is not YAML{where}: {error.problem}.") from error
        if not isinstance(told, dict):
            raise ValueError(f"it is a {type(told).__name__}, want 'name: value' lines")
        return told


def written_out(root: yaml.Node) -> int:
    """How many values there are with each alias in full. Raises ValueError if they are too many."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise ValueError("it holds itself")
            return sizes[id(node)]
        sizes[id(node)] = 0
        children = node.value if isinstance(node.value, list) else []
        flat = (child for each in children for child in (each if isinstance(each, tuple) else (each,)))
        total = 1 + sum(map(size, flat))
        if total > MAX_FILE_VALUES:
            raise ValueError(f"it has more than {MAX_FILE_VALUES:,} values")
        sizes[id(node)] = total
        return total

    return size(root)
