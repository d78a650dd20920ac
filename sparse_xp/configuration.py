"""Every key of the configuration: its group, type, default and meaning.

The docstrings of the dataclasses (their ``Attributes:``) are the reference of the options. They are read from the
sources, without importing any: ``--help`` answers at once.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from docstring_parser.google import parse as parse_google

from sparse_xp.places import CONF, GROUPS, PACKAGE

#: the sources of the dataclasses that hold keys
SOURCES = ("settings.py", "config.py", "modifiers", "tasks")
#: keys of ``Config`` that are no group of keys themselves
PLAIN_KEYS = ("zoo", "profile", "seed")
#: the names of types in the reference, by annotation; a time is epochs, ``'N steps'`` or ``'N%'``
TYPES = {"TimeSpec": "time", "Any": "any", "list[str]": "list of str", "list[str | int]": "list"}


@dataclass(frozen=True)
class Key:
    """One key. ``meaning``: as its docstring has it, with double backticks. ``default``: empty if there is none."""

    path: str
    type: str
    default: str
    meaning: str

    @property
    def summary(self) -> str:
        """The first sentence of the meaning."""
        return first_sentence(self.meaning)


@dataclass(frozen=True)
class KeySection:
    """The keys of one dataclass. ``options``: those of its group that have these keys; empty: all of them."""

    group: str
    kind: str
    meaning: str
    options: tuple[str, ...]
    keys: tuple[Key, ...]

    @property
    def title(self) -> str:
        """What the section is about, in words of a command line."""
        if self.group == "modifiers":
            return f"+modifier@recipe.modifiers.NAME={self.kind}"
        return f"{self.group}={','.join(self.options)}" if self.options else self.group


@dataclass(frozen=True)
class Option:
    """One option of a group: ``GROUP=NAME``. ``kind``: the class of its keys, if its file names one."""

    group: str
    name: str
    meaning: str
    kind: str
    file: Path

    def settings(self) -> dict[str, Any]:
        """Return the values that the file of the option sets, by key."""
        content = yaml.safe_load(self.file.read_text(encoding="utf-8")) or {}
        return {key: value for key, value in content.items() if key != "defaults"}

    def chosen(self) -> dict[str, str]:
        """Return the options of other groups that the file of the option chooses, by group."""
        content = yaml.safe_load(self.file.read_text(encoding="utf-8")) or {}
        entries = [entry for entry in content.get("defaults", []) if isinstance(entry, dict)]
        pairs = [pair for entry in entries for pair in entry.items()]
        return {key.removeprefix("override /"): str(name) for key, name in pairs if key.startswith("override /")}


def sections() -> list[KeySection]:
    """Return every key that a command line can set, in the order of the reference."""
    run = keys_of("Config", "")
    return [
        KeySection("run", "Config", "", (), tuple(key for key in run if key.path in PLAIN_KEYS)),
        _section("task", "Task"),
        *_sections_by_kind("task", below="Task"),
        _section("model", "Model"),
        *_sections_by_kind("model", {"Tiny": "TinyModel"}, below="Model"),
        _section("teacher", "Teacher"),
        _section("teacher.distillation", "Distillation"),
        *_sections_by_kind("sparsity"),
        *_sections_by_kind("quantization"),
        _section("recipe", "RecipeSettings"),
        _section("recipe.learning_rate.NAME", "LearningRate"),
        _section("recipe.weight_decay", "WeightDecay"),
        *(_section("modifiers", kind, "recipe.modifiers.NAME.") for kind in _further_modifiers()),
        *(_section(group, group.capitalize()) for group in ("train", "data", "export", "log")),
    ]


def group_options(group: str) -> list[Option]:
    """Return the options of a group by name."""
    return [_option(group, path) for path in sorted((CONF / group).glob("*.yaml"))]


def default_options() -> dict[str, str]:
    """Return the option that each group has if none is chosen."""
    entries = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    return {group: str(name) for group, name in pairs if group in GROUPS}


def keys_of(kind: str, prefix: str, below: str | None = None) -> list[Key]:
    """Return the keys of a dataclass and of its bases, in the order of the fields. ``below``: without those of it."""
    fields: dict[str, ast.AnnAssign] = {}
    meanings: dict[str, str] = {}
    for node in _bases(kind):
        fields |= dict(_fields(node))
        meanings |= attributes(ast.get_docstring(node) or "")
    for node in _bases(below) if below else []:
        for name, inherited in _fields(node):
            if fields[name] is inherited:
                del fields[name]
    return [
        Key(f"{prefix}{name}", _type_name(field), _default_text(field.value), meanings.get(name, ""))
        for name, field in fields.items()
    ]


def first_sentence(text: str) -> str:
    """Return the first sentence of a text."""
    return re.split(r"(?<=[.])(?<! al[.])\s", text, maxsplit=1)[0]


def attributes(docstring: str) -> dict[str, str]:
    """Return the entries of the section ``Attributes:`` of a docstring, each as one line."""
    found = parse_google(docstring).params
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in found}


def _section(group: str, kind: str, prefix: str = "") -> KeySection:
    return KeySection(group, kind, _headline(kind), (), tuple(keys_of(kind, prefix or f"{group}.")))


def _sections_by_kind(
    group: str, classes: dict[str, str] | None = None, below: str | None = None
) -> Iterator[KeySection]:
    """Yield a section for each class that options of the group name. ``classes``: by the name that the files use."""
    kinds: dict[str, list[str]] = {}
    for option in group_options(group):
        kinds.setdefault((classes or {}).get(option.kind, option.kind), []).append(option.name)
    for kind, names in kinds.items():
        if kind in _classes() and (keys := keys_of(kind, f"{group}.", below)):
            yield KeySection(group, kind, _headline(kind), tuple(names), tuple(keys))


def _further_modifiers() -> list[str]:
    """Return the modifiers that have no group of their own, in the order of ``modifiers/__init__.py``."""
    text = (PACKAGE / "modifiers" / "__init__.py").read_text(encoding="utf-8")
    known = [name for name in re.findall(r" as (\w+)$", text, re.M) if name != "Modifier"]
    grouped = {option.kind for group in ("sparsity", "quantization") for option in group_options(group)}
    return [name for name in known if name not in {*grouped, "Distillation", "LearningRate", "WeightDecay"}]


def _option(group: str, path: Path) -> Option:
    text = path.read_text(encoding="utf-8")
    comment = re.match(r"(?:# @package.*\n)?((?:#.*\n)*)", text)
    lines = [line.removeprefix("#").strip() for line in (comment[1].splitlines() if comment else [])]
    meaning = " ".join(line for line in lines if not line.startswith("python -m"))
    return Option(group, path.stem, meaning, _kind(text, path.parent), path)


def _kind(text: str, folder: Path) -> str:
    """Return the class that the file of an option names, or the option that it begins with."""
    if named := re.search(r"@_here_: (\w+)", text):
        return named[1]
    base = re.search(r"^  - (\w+)@_here_$", text, re.M)
    return _kind((folder / f"{base[1]}.yaml").read_text(encoding="utf-8"), folder) if base else ""


@cache
def _classes() -> dict[str, ast.ClassDef]:
    """Return the dataclasses of ``SOURCES`` by name. No two modules define the same name."""
    paths = [path for source in SOURCES for path in sorted((PACKAGE / source).rglob("*.py")) or [PACKAGE / source]]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    trees = [ast.parse(text) for text in texts if "@dataclass(kw_only=True)" in text]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def _bases(kind: str) -> list[ast.ClassDef]:
    """Return a class after its bases."""
    node = _classes().get(kind)
    if node is None:
        return []
    bases = [base.id for base in reversed(node.bases) if isinstance(base, ast.Name)]
    return [*(each for base in bases for each in _bases(base)), node]


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.AnnAssign]]:
    for statement in node.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=hint) if "ClassVar" not in ast.unparse(hint):
                yield name, statement


def _headline(kind: str) -> str:
    """Return the first paragraph of the docstring of a class, as one line."""
    return " ".join((ast.get_docstring(_classes()[kind]) or "").partition("\n\n")[0].split())


def _type_name(field: ast.AnnAssign) -> str:
    text = ast.unparse(field.annotation)
    name, optional = text.removesuffix(" | None"), text.endswith(" | None")
    return f"{TYPES.get(name, name)}{' or null' if optional else ''}"


def _default_text(value: ast.expr | None) -> str:
    """Return a default as it is written on a command line; empty if there is none, or if it is a group of keys."""
    if isinstance(value, ast.Call):
        arguments = {argument.arg: argument.value for argument in value.keywords}
        if "default" in arguments:
            return _default_text(arguments["default"])
        factory = arguments.get("default_factory")
        if isinstance(factory, ast.Lambda):
            return str(ast.literal_eval(factory.body)).replace("'", "")
        return {"list": "[]", "dict": "{}"}.get(ast.unparse(factory), "") if factory else ""
    if not isinstance(value, ast.Constant):  # none, or a name such as MISSING
        return ""
    if value.value is None or isinstance(value.value, bool):
        return {None: "null", True: "true", False: "false"}[value.value]
    return str(value.value) or '""'
