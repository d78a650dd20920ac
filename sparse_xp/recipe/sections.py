"""A recipe's parsed YAML as sections: what stands outside of stages, then each stage, with arguments filled in.

``scope`` resolves the sections. ``unreached`` finds the arguments that change nothing.
"""

from __future__ import annotations

import reprlib
from typing import TypeGuard

import yaml

from sparse_xp.recipe.loader import Loader, RecipeError, TaggedMapping
from sparse_xp.recipe.scope import Section, names_hint
from sparse_xp.recipe.unreached import unreached_arguments

#: keys of a recipe that are no variables
METADATA = ("__metadata__", "metadata", "version")

#: the nodes under the keys of a section
Items = dict[str, yaml.Node]


def sections_of(
    name: str, loader: Loader, root: yaml.Node | None, arguments: dict[str, object], anchors: bool
) -> tuple[list[Section], list[str]]:
    """Return the section outside of stages, then the stages that are run, and remarks.

    ``arguments`` replace variables of these names wherever they are defined; with ``anchors`` their aliases too.
    Raises RecipeError for another structure, and for an argument that no section has.
    """
    if root is None:
        raise RecipeError(name, None, "empty")
    if root.tag.startswith("!"):  # one bare modifier
        if arguments:
            raise RecipeError(name, None, f"it has no variables, and recipe.args names {', '.join(arguments)}")
        value = loader.construct_object(root, deep=True)
        return [Section(_listed_modifiers(name, loader, "modifiers", root, value))], []
    if not _is_mapping(root):
        message = "expected 'name: value' lines at the top, modifiers in named lists"
        raise RecipeError(name, loader.position(root), message)
    outside, stages = _split_stages(loader, root)
    parts = [outside, *stages.values()]
    _check_arguments(name, parts, arguments)
    if anchors:
        _replace_anchors(loader, parts, arguments)
    sections = [_section(name, loader, items, arguments) for items in parts]
    for section, stage in zip(sections[1:], stages, strict=True):
        section.name = stage
    remarks = unreached_arguments(name, loader, root, parts, sections, arguments, anchors) if arguments else []
    if stages and sections[0].modifiers:
        remarks.append(
            f"{name} has modifiers at the top as well as stages ({', '.join(stages)}): the stages are not run, as in "
            "SparseML. Put the modifiers at the top into a stage of their own."
        )
        return sections[:1], remarks
    return sections, remarks


def _is_mapping(node: yaml.Node) -> TypeGuard[yaml.MappingNode]:
    """Return whether a node is a mapping without a tag of its own."""
    return isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map"


def _split_stages(loader: Loader, root: yaml.MappingNode) -> tuple[Items, dict[str, Items]]:
    """Return what stands outside of stages, and the stages: mappings with a key that contains ``modifiers``."""
    items = loader.items(root)
    mappings = {key: loader.items(node) for key, node in items.items() if _is_mapping(node)}
    stages = {key: inner for key, inner in mappings.items() if any("modifiers" in name for name in inner)}
    return {key: node for key, node in items.items() if key not in stages}, stages


def _check_arguments(name: str, parts: list[Items], arguments: dict[str, object]) -> None:
    """Raise RecipeError for an argument that is no variable of any section."""
    for key in arguments:
        if not any(key in items and "modifiers" not in key for items in parts):
            known = [name for items in parts for name in items if "modifiers" not in name and not name.startswith("__")]
            hint = names_hint(key, known)
            raise RecipeError(name, None, f"recipe.args names {key[:80]}, and the recipe has no such variable.{hint}")


def _replace_anchors(loader: Loader, parts: list[Items], arguments: dict[str, object]) -> None:
    """Let the aliases of a variable construct the argument: PyYAML constructs each node once."""
    for key, value in arguments.items():
        for items in parts:
            if key in items and loader.anchor_names.get(id(items[key])) == key:
                loader.constructed_objects[items[key]] = value


def _section(name: str, loader: Loader, items: Items, arguments: dict[str, object]) -> Section:
    """Return the variables and modifiers under these keys. Raises RecipeError for modifiers at a wrong place."""
    section = Section()
    for key, node in items.items():
        value = loader.construct_object(node, deep=True)
        if "modifiers" in key:
            section.modifiers += _listed_modifiers(name, loader, key, node, value)
            continue
        listed = value if isinstance(value, list) else [value]
        if any(isinstance(entry, TaggedMapping) for entry in listed):
            message = f"modifiers under {key!r}: the name of their list must contain 'modifiers'"
            raise RecipeError(name, loader.position(node), message)
        if key not in METADATA:
            section.variables[key] = arguments.get(key, value)
            section.positions[key] = loader.position(node)
    return section


def _listed_modifiers(name: str, loader: Loader, key: str, node: yaml.Node, value: object) -> list[TaggedMapping]:
    """Return the modifiers in the list under ``key``. Raises RecipeError for a mapping, and for an untagged entry."""
    if isinstance(value, dict):
        raise RecipeError(
            name,
            loader.position(node),
            f"{key} is a mapping: this is the later dialect of SparseML 1.6 and llm-compressor (stages with "
            "run_type, modifiers without a tag), which no BERT script read. Write a list of '- !NameModifier'.",
        )
    if value is None:
        return []
    entries = value if isinstance(value, list) else [value]
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    modifiers = []
    for entry, entry_node in zip(entries, nodes, strict=True):
        if not isinstance(entry, TaggedMapping):
            text = f"{reprlib.repr(entry):.60}"
            raise RecipeError(name, loader.position(entry_node), f"{key} holds {text}; expected '- !NameModifier'")
        modifiers.append(entry)
    return modifiers
